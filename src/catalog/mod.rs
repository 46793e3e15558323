//! Ordinary SQL: what the server's catalogs say, and the publication that is made to fit.
//!
//! One connection, made when it is needed and made again when it was lost. Nothing here is on the path of a row, except the
//! facts about a table, which are asked for once per Relation message.

mod connection;
mod facts;
mod membership;
mod publication;
mod rows;
mod relation;
mod snapshot;
mod standby;
mod copy_statement;
mod server;
mod tables;
mod hosting;
mod inspection;

pub use connection::Catalog;
pub use copy_statement::{CopyStatement, KeyRange};
pub use facts::PrimaryKey;
pub(crate) use facts::{KeySeen, KeysSeen};
pub use hosting::{Hosting, LOGICAL, Wish};
pub use inspection::{NearMiss, OtherSlot, ReplicationRole, Role, Setting, SlotState, TablePrivileges};
pub(crate) use membership::{MEMBER, may_have_been_out};
pub use publication::{Publication, PublicationPlan, PublicationShape};
pub use relation::DescribedTable;
pub(crate) use rows::{Lines, RowReader};
pub use server::ServerSettings;
pub use snapshot::{KeyColumn, ReadOrder, SnapshotTable};
pub(crate) use standby::{
    Cluster, REPLAYS_NOTHING_FOUND, Replayed, StandbyIdentity, StandbyState, at_standby, is_same_order, unfit,
};
pub use tables::{Leaf, MatchedTable, PublishedTable, WithoutIdentity};
