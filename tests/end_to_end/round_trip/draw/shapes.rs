//! Geometry.

use super::Draw;

impl Draw {
    fn coordinate(&mut self) -> String {
        match self.float8() {
            // Corners are put in order, and radii compared: that goes for numbers.
            text if text.contains(['N', 'I']) => "0.1".to_owned(),
            // Sums and products of coordinates must not overflow.
            text => {
                text.split_once('e').map_or(text.clone(), |(digits, _)| format!("{digits}e{}", self.within(-150, 150)))
            }
        }
    }

    /// Of any numbers.
    pub(crate) fn point(&mut self) -> String {
        format!("({},{})", self.float8(), self.float8())
    }

    fn finite_point(&mut self) -> String {
        format!("({},{})", self.coordinate(), self.coordinate())
    }

    pub(crate) fn line(&mut self) -> String {
        format!("{{{},{},{}}}", self.random.one_of(&["1", "-0.1", "1e100"]), self.coordinate(), self.coordinate())
    }

    pub(crate) fn lseg(&mut self) -> String {
        format!("[{}]", self.list(2, Self::finite_point, ","))
    }

    pub(crate) fn corners(&mut self) -> String {
        self.list(2, Self::finite_point, ",")
    }

    pub(crate) fn path(&mut self) -> String {
        let count = 1 + self.count(6);
        let points = self.list(count, Self::finite_point, ",");
        if self.random.chance(50) { format!("[{points}]") } else { format!("({points})") }
    }

    pub(crate) fn polygon(&mut self) -> String {
        let count = 1 + self.count(6);
        format!("({})", self.list(count, Self::finite_point, ","))
    }

    pub(crate) fn circle(&mut self) -> String {
        format!("<{},{}>", self.finite_point(), self.coordinate().trim_start_matches('-'))
    }
}
