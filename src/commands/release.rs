//! `pgsluice release`

use std::{borrow::Cow, env, path::Path, process::ExitCode};

use clap::Args;

use super::{ConfigFile, init_logging, runtime};
use crate::{
    config::Config,
    failure::{Code, Failure},
    pipeline::{Done, Outcome, Purpose, Release, Waiting, Wanted, kafka_settings, look_at_kafka, preview_discard},
    schemas::Schemas,
};

/// Write the events of tables in quarantine, whose subjects are mended, and end their quarantine. The stream must be stopped meanwhile.
///
/// Everything or nothing is written of a table as long as nobody interrupts it; if somebody does, it goes on there when it is run again.
#[derive(Debug, Args)]
pub(super) struct ReleaseCommand {
    #[command(flatten)]
    config: ConfigFile,
    /// The tables, as `schema.table`; or the topics that they are to be written to.
    #[arg(required_unless_present = "all")]
    tables: Vec<String>,
    /// All tables that are in quarantine.
    #[arg(long, conflicts_with = "tables")]
    all: bool,
    /// Do not ask PostgreSQL whether an instance of the stream runs. One that does is fenced, and ends.
    #[arg(long)]
    force: bool,
    /// Give up what waits of these tables, and end their quarantine without it: for letters that are gone, or that nothing can be made of. Only
    /// tells what that would be, and how to do it.
    #[arg(long, conflicts_with = "all")]
    discard: bool,
    /// With --discard, and for one table: the changes up to this offset may be lost.
    #[arg(long, value_name = "OFFSET", requires = "discard")]
    up_to: Option<i64>,
}

impl ReleaseCommand {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let config = self.config.load()?;
        init_logging(&config);
        let runtime = runtime()?;
        if self.discard {
            let outcome = runtime.block_on(Box::pin(self.discard(config)));
            runtime.shutdown_background();
            return outcome.map(|()| ExitCode::SUCCESS);
        }
        let wanted = if self.all { Wanted::All } else { Wanted::Tables(self.tables) };
        let outcome = runtime.block_on(async {
            look_at_kafka(&config).await?;
            let schemas = Schemas::new(&config, &kafka_settings(&config))?;
            match Release::begin(config, schemas, &wanted, Purpose::Release, self.force).await? {
                Some(mut release) => Box::pin(release.run(&wanted)).await,
                None => Ok(Vec::new()),
            }
        });
        // A blocking call to Kafka may outlast a failure; nothing that it could still do counts.
        runtime.shutdown_background();
        Ok(report(&outcome?))
    }

    async fn discard(self, config: Config) -> Result<(), Failure> {
        look_at_kafka(&config).await?;
        let Some(seen) = self.up_to else {
            let file = self.config.config.as_deref();
            // One that the environment names is found again.
            let file = file.filter(|file| env::var_os("PGSLUICE_CONFIG").is_none_or(|named| named != file.as_os_str()));
            for waiting in preview_discard(&config, &self.tables).await? {
                println!("{waiting}");
                println!("{}", how_to_give_up(&waiting, &self.tables, file));
            }
            return Err(Failure::new(Code::NotConfirmed, "nothing was changed: these changes would be in no topic"));
        };
        let [table] = &self.tables[..] else {
            return Err(Failure::new(Code::NotConfirmed, "nothing was changed: an offset is that of one table"));
        };
        let schemas = Schemas::new(&config, &kafka_settings(&config))?;
        let wanted = Wanted::Tables(self.tables.clone());
        if let Some(mut release) = Release::begin(config, schemas, &wanted, Purpose::Discard, self.force).await? {
            for waiting in release.discard(table, seen).await? {
                println!("given up: {waiting}");
            }
        }
        Ok(())
    }
}

/// The command that gives up what waits, by the name that it was asked by: it is the table's only if it can be no other's.
fn how_to_give_up(waiting: &Waiting, asked: &[String], file: Option<&Path>) -> String {
    if let Some(other) = &waiting.behind {
        return format!("what waits for topic {other} comes first: release or discard {}", quoted(other));
    }
    let name = if asked.contains(&waiting.topic) { &waiting.topic } else { &waiting.table };
    let file = file.map(|file| format!(" --config {}", quoted(&file.to_string_lossy()))).unwrap_or_default();
    format!("to give them up: pgsluice release{file} --discard {} --up-to {}", quoted(name), waiting.end)
}

/// A word for a shell.
fn quoted(word: &str) -> Cow<'_, str> {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "_-./:@%+=,".contains(character);
    if !word.is_empty() && word.chars().all(is_plain) {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
}

/// Says what became of each table. The exit code is that of the first that was refused.
fn report(outcomes: &[Outcome]) -> ExitCode {
    if outcomes.is_empty() {
        println!("no table is in quarantine");
    }
    let (mut released, mut first) = (0, None);
    for Outcome { table, topic, done } in outcomes {
        match done {
            Done::Released(changes) => {
                released += 1;
                println!("{table}: {changes} changes released to {topic}");
            }
            Done::Refused(failure) => {
                first.get_or_insert(failure.code());
                eprintln!("pgsluice: {table} is not released: {failure}");
            }
            Done::Untried => {
                eprintln!("pgsluice: {table} is not released: it was not tried after the failure before it");
            }
        }
    }
    match first {
        None => ExitCode::SUCCESS,
        Some(code) => {
            eprintln!(
                "pgsluice: {released} of {} tables are released; the others are in quarantine still",
                outcomes.len()
            );
            ExitCode::from(code.exit_code())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_is_told_is_for_what_was_asked() {
        let mut waiting = Waiting {
            table: "public.it's".into(),
            topic: "shop.public.item".into(),
            behind: None,
            letters: "letters".into(),
            changes: 1,
            unreadable: 0,
            range: None,
            missing: None,
            end: 7,
        };
        let told = |waiting: &Waiting, asked: &str, file: Option<&str>| {
            how_to_give_up(waiting, &[asked.to_owned()], file.map(Path::new))
        };
        assert_eq!(
            told(&waiting, "public.it's", None),
            r"to give them up: pgsluice release --discard 'public.it'\''s' --up-to 7"
        );
        assert_eq!(
            told(&waiting, "shop.public.item", Some("/etc/my shop.toml")),
            "to give them up: pgsluice release --config '/etc/my shop.toml' --discard shop.public.item --up-to 7"
        );
        waiting.behind = Some("a;b".into());
        assert_eq!(
            told(&waiting, "public.it's", None),
            "what waits for topic a;b comes first: release or discard 'a;b'"
        );
    }

    #[test]
    fn a_word_is_quoted_where_a_shell_would_read_it() {
        for (word, expected) in
            [("", "''"), ("a.b-c_1", "a.b-c_1"), ("$(x)", "'$(x)'"), ("é", "'é'"), ("a\nb", "'a\nb'")]
        {
            assert_eq!(quoted(word), expected);
        }
    }
}
