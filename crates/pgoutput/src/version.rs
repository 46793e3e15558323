//! Versions of the logical replication protocol.

use std::fmt;

/// The version that was asked for with the option `proto_version`. Each one has everything that the one before it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProtocolVersion {
    /// Committed transactions, in the order of their commits. PostgreSQL 10.
    V1,
    /// Large transactions can be streamed while they run, with the option `streaming`. PostgreSQL 14.
    V2,
    /// Two-phase commit, with the option `two_phase`. PostgreSQL 15.
    V3,
    /// Streamed transactions can be applied in parallel, with the option `streaming 'parallel'`. PostgreSQL 16.
    V4,
}

impl ProtocolVersion {
    /// The newest version that a server speaks, by its `server_version_num` such as `180001`; `None` before PostgreSQL
    /// 10.
    pub const fn newest_of_server(server_version_num: u32) -> Option<Self> {
        match server_version_num / 10_000 {
            ..10 => None,
            10..14 => Some(Self::V1),
            14 => Some(Self::V2),
            15 => Some(Self::V3),
            16.. => Some(Self::V4),
        }
    }

    /// The number for the option `proto_version`.
    pub const fn number(self) -> u8 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
            Self::V3 => 3,
            Self::V4 => 4,
        }
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.number(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_speaks_what_its_release_brought() {
        let newest = ProtocolVersion::newest_of_server;
        assert_eq!(newest(90_624), None);
        assert_eq!(newest(100_000), Some(ProtocolVersion::V1));
        assert_eq!(newest(130_022), Some(ProtocolVersion::V1));
        assert_eq!(newest(140_020), Some(ProtocolVersion::V2));
        assert_eq!(newest(150_015), Some(ProtocolVersion::V3));
        assert_eq!(newest(160_011), Some(ProtocolVersion::V4));
        assert_eq!(newest(180_001), Some(ProtocolVersion::V4));
    }
}
