//! What names something: a network, a place in the log or in a table, a transaction.

use super::Draw;

impl Draw {
    pub(crate) fn uuid(&mut self) -> String {
        let hex = format!("{:016x}{:016x}", self.random.next(), self.random.next());
        [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
    }

    pub(crate) fn inet(&mut self) -> String {
        if self.random.chance(50) {
            let address = std::net::Ipv4Addr::from_bits(self.signed32().cast_unsigned());
            format!("{address}/{}", self.within(0, 32))
        } else {
            let bits = u128::from(self.random.next()) << 64 | u128::from(self.random.next() >> self.random.below(64));
            format!("{}/{}", std::net::Ipv6Addr::from_bits(bits), self.within(0, 128))
        }
    }

    /// No bit is set behind the mask.
    pub(crate) fn cidr(&mut self) -> String {
        if self.random.chance(50) {
            let length = self.random.within(0..33);
            let mask = u32::MAX.checked_shl(32 - u32::try_from(length).expect("it is small")).unwrap_or(0);
            format!("{}/{length}", std::net::Ipv4Addr::from_bits(self.signed32().cast_unsigned() & mask))
        } else {
            let length = self.random.within(0..129);
            let mask = u128::MAX.checked_shl(128 - u32::try_from(length).expect("it is small")).unwrap_or(0);
            let bits = u128::from(self.random.next()) << 64 | u128::from(self.random.next());
            format!("{}/{length}", std::net::Ipv6Addr::from_bits(bits & mask))
        }
    }

    pub(crate) fn macaddr(&mut self) -> String {
        self.list(6, |draw| format!("{:02x}", draw.random.below(256)), ":")
    }

    pub(crate) fn macaddr8(&mut self) -> String {
        self.list(8, |draw| format!("{:02x}", draw.random.below(256)), ":")
    }

    pub(crate) fn pg_lsn(&mut self) -> String {
        let bits = self.signed().cast_unsigned();
        format!("{:X}/{:X}", bits >> 32, bits & 0xffff_ffff)
    }

    pub(crate) fn tid(&mut self) -> String {
        format!("({},{})", self.oid(), self.within(0, 65_535))
    }

    pub(crate) fn pg_snapshot(&mut self) -> String {
        let start = self.random.within(1..1 << 60);
        let count = self.count(5);
        let running: Vec<_> = (0..count as u64).map(|offset| (start + offset * 3).to_string()).collect();
        format!("{start}:{}:{}", start + 20, running.join(","))
    }
}
