//! Ordinary SQL: what the server's catalogs say, and the publication that is made to fit.
//!
//! One connection, made when it is needed and made again when it was lost. Nothing here is on the path of a row, except the
//! facts about a table, which are asked for once per Relation message.

mod connection;
mod copied;
mod facts;
mod publication;
mod rows;
mod server;
mod tables;
mod inspection;

pub use connection::Catalog;
pub use copied::{CopiedTable, RowSelection, UniqueColumn};
pub use inspection::{DescribedTable, NearMiss, Role, Setting, SlotState, TablePrivileges};
pub use publication::{Publication, PublicationPlan, PublicationShape};
pub(crate) use rows::RowReader;
pub use server::ServerSettings;
pub use tables::{Leaf, MatchedTable, PublishedTable, WithoutIdentity};
