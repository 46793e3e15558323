//! Whether the server ends what takes its time.
//!
//! Every connection of pgsluice takes `statement_timeout`, `lock_timeout`, `idle_session_timeout` and `idle_in_transaction_session_timeout` into its own hands when it begins,
//! whatever the role or the database have, and what a dead connection is told by is `wal_sender_timeout`. Only `transaction_timeout` is not there in every version.

use super::{
    id::CheckId,
    postgres::Session,
    report::{Findings, Problem},
};
use crate::failure::Failure;

const SETTING: &str = "transaction_timeout";

pub(super) async fn examine(session: &mut Session<'_>, findings: &mut Findings) -> Result<(), Failure> {
    let settings = session.catalog.settings(&[SETTING]).await?;
    let Some(setting) = settings.get(SETTING).filter(|setting| setting.raw != "0") else {
        findings.ok(
            CheckId::SessionTimeouts,
            "no limit for transactions; what limits statements and idle connections is set by pgsluice itself",
        );
        return Ok(());
    };
    let role = &session.role.name;
    findings.warning(Problem {
        id: CheckId::SessionTimeouts.into(),
        found: format!("{SETTING} is {} for role {role}", setting.shown),
        why: "a table without a key is copied in one transaction: where that takes longer, it begins anew again and again".into(),
        fix: format!(
            "ALTER ROLE {} IN DATABASE {} SET {SETTING} = 0",
            postgres_protocol::escape::escape_identifier(role),
            postgres_protocol::escape::escape_identifier(session.options.database())
        ),
    });
    Ok(())
}
