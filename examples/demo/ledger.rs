//! That every event is there once: the identities that were seen.

use std::collections::BTreeMap;

/// The identities of so many transactions are remembered: all of a demo, and enough of an endless one.
const TRANSACTIONS_MAX: usize = 500_000;

/// Which identities there were: of each transaction, by its commit LSN, the ordinals.
#[derive(Default)]
pub(crate) struct Ledger {
    transactions: BTreeMap<u64, Vec<u64>>,
    forgotten: u64,
    pub(crate) twice: u64,
    pub(crate) incomplete: u64,
}

impl Ledger {
    /// An event was seen.
    pub(crate) fn enter(&mut self, (commit_lsn, ordinal): (u64, u64)) {
        let (word, bit) = (usize::try_from(ordinal / 64).unwrap_or(usize::MAX), 1 << (ordinal % 64));
        let ordinals = self.transactions.entry(commit_lsn).or_default();
        if ordinals.len() <= word {
            ordinals.resize(word + 1, 0);
        }
        if ordinals[word] & bit != 0 {
            self.twice += 1;
        }
        ordinals[word] |= bit;
        if self.transactions.len() > TRANSACTIONS_MAX {
            self.forget_first();
        }
    }

    /// How many transactions there were.
    pub(crate) fn transactions(&self) -> u64 {
        self.forgotten + self.transactions.len() as u64
    }

    /// All is read: what is not complete now never will be.
    pub(crate) fn close(&mut self) {
        self.incomplete += self.transactions.values().filter(|ordinals| !is_complete(ordinals)).count() as u64;
    }

    fn forget_first(&mut self) {
        if let Some((_, ordinals)) = self.transactions.pop_first() {
            self.forgotten += 1;
            self.incomplete += u64::from(!is_complete(&ordinals));
        }
    }
}

/// Ordinals begin at 1 and leave none out.
fn is_complete(ordinals: &[u64]) -> bool {
    let count: u32 = ordinals.iter().map(|word| word.count_ones()).sum();
    let highest = ordinals.iter().rposition(|word| *word != 0).map_or(0, |word| {
        let word_start = u32::try_from(word).unwrap_or(u32::MAX / 64) * 64;
        word_start + 63 - ordinals[word].leading_zeros()
    });
    count == highest
}
