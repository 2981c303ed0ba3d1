//! Where everything is, below PREFIX/CLUSTER/.

/// Names are in such an order that one range covers what is watched: `leader` and `log/`.
#[derive(Clone, Debug)]
pub(crate) struct Keys(String);

/// After `/` comes `0`: the first key behind all that begin with `.../`.
fn below(dir: String) -> (String, String) {
    let end = format!("{}0", &dir[..dir.len() - 1]);
    (dir, end)
}

impl Keys {
    pub(crate) fn new(prefix: &str, cluster: &str) -> Self {
        Self(format!("{prefix}/{cluster}/"))
    }

    /// What an operator would have to delete.
    pub(crate) fn all(&self) -> &str {
        &self.0
    }

    /// The cluster's id, by which two clusters of one name are told apart.
    pub(crate) fn id(&self) -> String {
        format!("{}id", self.0)
    }

    /// The index of the newest entry.
    pub(crate) fn head(&self) -> String {
        format!("{}head", self.0)
    }

    pub(crate) fn leader(&self) -> String {
        format!("{}leader", self.0)
    }

    pub(crate) fn snapshot(&self) -> String {
        format!("{}snapshot", self.0)
    }

    /// Padded, so that keys sort as numbers do.
    pub(crate) fn entry(&self, index: u64) -> String {
        format!("{}log/{index:020}", self.0)
    }

    pub(crate) fn entry_index(&self, key: &str) -> Option<u64> {
        key.strip_prefix(&self.0)?.strip_prefix("log/")?.parse().ok()
    }

    /// The entries from `first` up to `end` (exclusive); all further ones when there is no `end`.
    pub(crate) fn entries(&self, first: u64, end: Option<u64>) -> (String, String) {
        let end = end.map_or_else(|| below(format!("{}log/", self.0)).1, |e| self.entry(e));
        (self.entry(first), end)
    }

    pub(crate) fn watched(&self) -> (String, String) {
        (self.leader(), below(format!("{}log/", self.0)).1)
    }

    /// One part of what is too long for one value.
    pub(crate) fn part(&self, id: &str, number: usize) -> String {
        format!("{}parts/{id}/{number:06}", self.0)
    }

    pub(crate) fn parts_of(&self, id: &str) -> (String, String) {
        below(format!("{}parts/{id}/", self.0))
    }

    pub(crate) fn parts(&self) -> (String, String) {
        below(format!("{}parts/", self.0))
    }

    /// Whose part it is.
    pub(crate) fn part_id<'a>(&self, key: &'a str) -> Option<&'a str> {
        key.strip_prefix(&self.0)?.strip_prefix("parts/")?.split('/').next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_and_are_read_back() {
        let keys = Keys::new("/vipd", "lab");
        assert!(keys.entry(9) < keys.entry(10));
        assert_eq!(keys.entry_index(&keys.entry(u64::MAX)), Some(u64::MAX));
        assert_eq!(keys.entry_index(&keys.leader()), None);
        let (from, to) = keys.watched();
        let watched = |key: &str| from.as_str() <= key && key < to.as_str();
        assert!(watched(&keys.leader()) && watched(&keys.entry(0)) && watched(&keys.entry(u64::MAX)));
        for key in [keys.id(), keys.head(), keys.snapshot(), keys.part("x", 0)] {
            assert!(!watched(&key), "{key}");
        }
        assert_eq!(keys.part_id(&keys.part("ab", 3)), Some("ab"));
        let (from, to) = keys.parts_of("ab");
        assert!(from < keys.part("ab", 999_999) && keys.part("ab", 999_999) < to && keys.part("abc", 0) > to);
    }
}
