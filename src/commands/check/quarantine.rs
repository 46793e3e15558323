//! Tables in quarantine, and their letters: whether they are all there, and will be for as long as they wait.

use std::{collections::BTreeMap, sync::Arc};

use publisher::{Isolation, LogReader, PublishError};
use tokio::{task::spawn_blocking, time::timeout};

use super::{
    STEP_TIMEOUT,
    kafka::{Kafka, Reached, incomplete},
    report::{Problem, Severity},
};
use crate::{
    failure::Code,
    pipeline::Unkept,
    quarantine::{Quarantine, Quarantined},
};

impl Kafka {
    /// Which tables are held back, by what is attached to the checkpoint.
    pub(super) async fn quarantine(&mut self, reached: &Reached, attachments: &BTreeMap<String, Vec<u8>>) {
        let quarantine = match Quarantine::read(attachments) {
            Ok(quarantine) => quarantine,
            Err(found) => {
                let (id, fix) = (Code::CheckpointCorrupt.as_str(), Code::CheckpointCorrupt.fix().to_owned());
                self.findings.error(Problem { id, found, why: "run refuses to start".into(), fix });
                return;
            }
        };
        if quarantine.is_empty() {
            return;
        }
        for (topic, entry) in quarantine.iter() {
            self.findings.warning(Problem {
                id: "quarantine",
                found: format!(
                    "table {} is in quarantine: its changes go to {} from offset {} on, and not to {topic}, since the registry said: {}",
                    entry.table, entry.letters, entry.next_offset, entry.reason
                ),
                why: "consumers of its topic see none of them".into(),
                fix: format!(
                    "lower the compatibility level of the subjects {topic}-key and {topic}-value, or remove the version in the way; then stop the \
                     stream, and run: pgsluice release {}",
                    entry.table
                ),
            });
        }
        let entries: Vec<Quarantined> = quarantine.iter().map(|(_, entry)| entry.clone()).collect();
        self.letters(reached, &entries).await;
    }

    async fn letters(&mut self, reached: &Reached, entries: &[Quarantined]) {
        let (probe, settings, wanted) = (Arc::clone(&reached.probe), self.settings.clone(), entries.to_vec());
        let looking = spawn_blocking(move || {
            // The topics may have been made since the cluster was asked for the first time.
            let there = probe.cluster()?.topics;
            let bounds = |entry: &Quarantined| {
                let mut reader = LogReader::new(&settings, entry.letters.as_str(), Isolation::Uncommitted);
                there.contains_key(&entry.letters).then(|| reader.bounds()).transpose()
            };
            wanted.iter().map(bounds).collect::<Result<Vec<_>, PublishError>>()
        });
        let bounds = match timeout(STEP_TIMEOUT, looking).await {
            Ok(Ok(Ok(bounds))) => bounds,
            Ok(Ok(Err(error))) => return self.findings.error(incomplete(&error.to_string())),
            Ok(Err(panicked)) => return self.findings.error(incomplete(&panicked.to_string())),
            Err(_elapsed) => {
                let found = "the dead letters of tables in quarantine could not be looked at in time";
                return self.findings.warning(incomplete(found));
            }
        };
        let mut there = Vec::new();
        for (entry, bounds) in entries.iter().zip(bounds) {
            if bounds.is_some() {
                there.push(entry);
            }
            if let Some(found) = entry.missing(bounds) {
                let problem = Problem {
                    id: Code::LettersMissing.as_str(),
                    found,
                    why: format!(
                        "they are the only copy of changes of {}; the stream stops at its next change, and release refuses it",
                        entry.table
                    ),
                    fix: format!(
                        "bring the topic back if it can be; or give up all that wait, with the stream stopped: pgsluice release --discard {}",
                        entry.table
                    ),
                };
                self.findings.about(Severity::Error, &entry.letters, problem);
            }
        }
        let topics: Vec<&str> = there.iter().map(|entry| entry.letters.as_str()).collect();
        let settings = self.topic_settings(reached, &topics).await;
        for entry in there {
            let Some(unkept) = settings.get(&entry.letters).map(Unkept::of).filter(|unkept| !unkept.is_nothing())
            else {
                continue;
            };
            let problem = Problem {
                id: "letters-retention",
                found: unkept.found(),
                why: format!(
                    "the changes of {}, which is in quarantine, are nowhere else, and may be removed at any time",
                    entry.table
                ),
                fix: unkept.fix(&entry.letters),
            };
            self.findings.about(Severity::Error, &entry.letters, problem);
        }
    }
}
