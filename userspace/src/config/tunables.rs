//! The defaults file of row IP-14: shell assignments, read anew before each action.

mod parse;

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

pub use parse::{Complaint, parse};

use crate::model::Tunables;

type Reporter = dyn Fn(&str) + Send + Sync;

/// The file, not its content: [`read`](Self::read) reads it as it is now. Cheap to clone; clones share
/// what has been complained about already.
#[derive(Clone)]
pub struct TunablesFile {
    path: Arc<Path>,
    reporter: Arc<Reporter>,
    reported: Arc<Mutex<BTreeSet<String>>>,
}

impl fmt::Debug for TunablesFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TunablesFile").field(&self.path).finish()
    }
}

impl TunablesFile {
    /// A missing file means the defaults. Wrong values are traced as warnings.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self::with_reporter(path, |complaint| tracing::warn!("{complaint}"))
    }

    /// As [`new`](Self::new), with wrong values told to `reporter`: each once, and again only after it
    /// was right in between.
    pub fn with_reporter(path: impl Into<PathBuf>, reporter: impl Fn(&str) + Send + Sync + 'static) -> Self {
        let path: PathBuf = path.into();
        Self { path: path.into(), reporter: Arc::new(reporter), reported: Arc::default() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tunables now: defaults, and over them what the file says rightly.
    pub fn read(&self) -> Tunables {
        let (tunables, complaints) = self.look();
        let new: Vec<&String> = {
            let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
            reported.retain(|old| complaints.contains(old));
            complaints.iter().filter(|c| reported.insert((*c).clone())).collect()
        };
        for complaint in new {
            (self.reporter)(complaint);
        }
        tunables
    }

    /// What is wrong in the file now, for people; nothing is reported.
    pub fn complaints(&self) -> Vec<String> {
        self.look().1
    }

    fn look(&self) -> (Tunables, Vec<String>) {
        let path = self.path.display();
        let text = match fs::read(&self.path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(e) => {
                return (
                    Tunables::default(),
                    vec![format!("{path}: cannot be read: {e}; the defaults hold")],
                );
            }
        };
        let (tunables, complaints) = parse(&text);
        (tunables, complaints.iter().map(|c| format!("{path}:{}: {}", c.line, c.problem)).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_missing_file_means_defaults() {
        let file = TunablesFile::with_reporter("/nonexistent/vipd", |c| panic!("{c}"));
        assert_eq!(file.read(), Tunables::default());
        assert!(file.complaints().is_empty());
    }

    #[test]
    fn an_unreadable_file_is_a_complaint() {
        let file = TunablesFile::new("/proc");
        assert_eq!(file.read(), Tunables::default());
        assert!(file.complaints()[0].contains("/proc: cannot be read"), "{:?}", file.complaints());
    }

    #[test]
    fn changes_hold_at_the_next_read_and_complaints_come_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vipd");
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let file = TunablesFile::with_reporter(&path, {
            let told = told.clone();
            move |c| told.lock().unwrap().push(c.to_owned())
        });
        fs::write(&path, "IP_PINGTIME=2\n\nIP_PINGTRIES=many\n").unwrap();
        assert_eq!(file.read().ping_wait, Duration::from_secs(2));
        assert_eq!(file.read().ping_tries, 3);
        fs::write(&path, "IP_PINGTRIES=4\n").unwrap();
        let now = file.read();
        assert_eq!((now.ping_wait, now.ping_tries), (Duration::from_secs(1), 4));
        assert_eq!(told.lock().unwrap().len(), 1);
        fs::write(&path, "IP_PINGTIME=2\n\nIP_PINGTRIES=many\n").unwrap();
        file.read();
        let told = told.lock().unwrap();
        assert_eq!(told.len(), 2, "right in between: told again");
        assert!(told[0].contains("vipd:3: IP_PINGTRIES='many'"), "{}", told[0]);
    }
}
