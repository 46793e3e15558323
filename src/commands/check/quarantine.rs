//! Tables in quarantine, and their letters: whether they are all there, and will be for as long as they wait.

use std::collections::BTreeMap;

use publisher::{Isolation, PublishError};
use tokio::{task::spawn_blocking, time::timeout};

use super::{
    STEP_TIMEOUT,
    id::CheckId,
    kafka::{Kafka, Reached, incomplete},
    report::{Problem, Severity, bytes_text},
    schemas::Schemas,
};
use crate::{
    failure::Code,
    pipeline::{Found, MAX_BYTES, Unkept, configure_command, look_for, too_small},
    quarantine::{Missing, Quarantine, Quarantined},
};

impl Kafka {
    /// How large letters may be, where there may be any.
    pub(super) fn letters_max_bytes(&mut self, schemas: &Schemas) {
        if schemas.may_hold_back() {
            let (letter, record) = (self.settings.letter_max_bytes(), self.settings.record_max_bytes());
            let text = |bytes: usize| bytes_text(i64::try_from(bytes).unwrap_or(i64::MAX));
            let found = format!(
                "a change of a table in quarantine may have {} as a dead letter, since its record may have {}",
                text(letter),
                text(record)
            );
            self.findings.ok(CheckId::LettersMaxBytes, found);
        }
    }

    /// Which tables are held back, by what is attached to the checkpoint.
    pub(super) async fn quarantine(&mut self, reached: &Reached, attachments: &BTreeMap<String, Vec<u8>>) {
        let quarantine = match Quarantine::read(attachments) {
            Ok(quarantine) => quarantine,
            Err(found) => {
                let (id, fix) = (Code::CheckpointCorrupt.into(), Code::CheckpointCorrupt.fix().to_owned());
                self.findings.error(Problem { id, found, why: "run refuses to start".into(), fix });
                return;
            }
        };
        if quarantine.is_empty() {
            return;
        }
        for (topic, entry) in quarantine.iter() {
            self.findings.warning(Problem {
                id: CheckId::Quarantine.into(),
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
        let (settings, wanted) = (self.settings.clone(), entries.to_vec());
        let looking = spawn_blocking(move || {
            let look = |entry: &Quarantined| look_for(&settings, entry, Isolation::Uncommitted);
            wanted.iter().map(look).collect::<Vec<Result<_, PublishError>>>()
        });
        let looked = match timeout(STEP_TIMEOUT, looking).await {
            Ok(Ok(looked)) => looked,
            Ok(Err(panicked)) => return self.findings.error(incomplete(&panicked.to_string())),
            Err(_elapsed) => {
                let found = "the dead letters of tables in quarantine could not be looked at in time";
                return self.findings.warning(incomplete(found));
            }
        };
        let mut there = Vec::new();
        for (entry, found) in entries.iter().zip(looked) {
            let Found { bounds, missing } = match found {
                Ok(found) => found,
                Err(error) => {
                    let found = format!("the dead letters of {} cannot be looked at: {error}", entry.table);
                    self.findings.about(Severity::Error, &entry.letters, incomplete(&found));
                    continue;
                }
            };
            if bounds.is_some() {
                there.push(entry);
            }
            if let Some(missing) = missing {
                let stops = match missing {
                    Missing::First(_) => "",
                    Missing::Topic(_) => "the stream stops at its next change, and ",
                };
                let problem = Problem {
                    id: Code::LettersMissing.into(),
                    found: missing.to_string(),
                    why: format!("they are the only copy of changes of {}; {stops}release refuses it", entry.table),
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
            let Some(config) = settings.get(&entry.letters) else { continue };
            let max_bytes = self.settings.letter_max_bytes();
            if let Some(found) = too_small(config, max_bytes) {
                let problem = Problem {
                    id: CheckId::LettersMaxBytes.into(),
                    found: format!("{found}, and a dead letter of {} may have {max_bytes}", entry.table),
                    why: "a letter that is larger than its topic takes stops the stream".into(),
                    fix: configure_command(
                        &self.settings.bootstrap_servers,
                        &entry.letters,
                        &format!("{MAX_BYTES}={max_bytes}"),
                    ),
                };
                self.findings.about(Severity::Warning, &entry.letters, problem);
            }
            let unkept = Unkept::of(config);
            if unkept.is_nothing() {
                continue;
            }
            let problem = Problem {
                id: CheckId::LettersRetention.into(),
                found: unkept.found(),
                why: format!(
                    "the changes of {}, which is in quarantine, are nowhere else, and may be removed at any time",
                    entry.table
                ),
                fix: unkept.fix(&self.settings.bootstrap_servers, &entry.letters),
            };
            self.findings.about(Severity::Error, &entry.letters, problem);
        }
    }
}
