//! Notes of a daemon for its next life: a directory with one JSON file for each thing. A page is there whole or not
//! at all, whatever happens while it is written, and stays over a crash of the host.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

/// Pages are named; a name is a file's.
#[derive(Clone, Debug)]
pub struct Pages {
    dir: PathBuf,
}

/// A page that is written at the moment, or never was to its end.
const FRESH: &str = ".new";
const WHOLE: &str = ".json";

impl Pages {
    /// The directory is made with the first page.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}{WHOLE}"))
    }

    /// In place of what the page said before. One page must not be written twice at the same time.
    ///
    /// # Errors
    /// When the directory or the file cannot be written: then it says what it said before.
    pub fn write<T: Serialize>(&self, name: &str, page: &T) -> io::Result<()> {
        if !self.dir.is_dir() {
            fs::create_dir_all(&self.dir)?;
            self.dir.parent().map_or(Ok(()), sync)?;
        }
        let fresh = self.dir.join(format!("{name}{FRESH}"));
        let mut file = File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(page)?)?;
        file.sync_all()?;
        fs::rename(&fresh, self.path(name))?;
        sync(&self.dir)
    }

    /// There is no such page any more.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn strike(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path(name)) {
            Ok(()) => sync(&self.dir),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// All pages by their names, or why one cannot be read. What was not written to its end goes: nothing was done yet
    /// of what it was to tell.
    ///
    /// # Errors
    /// When the directory is there and cannot be read.
    pub fn read<T: DeserializeOwned>(&self) -> io::Result<Vec<(String, Result<T, String>)>> {
        let files = match fs::read_dir(&self.dir) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut pages = Vec::new();
        for file in files {
            let file = file?;
            let Ok(name) = file.file_name().into_string() else { continue };
            if let Some(name) = name.strip_suffix(WHOLE) {
                let page = fs::read(file.path()).map_err(|e| e.to_string());
                let page = page.and_then(|text| serde_json::from_slice(&text).map_err(|e| e.to_string()));
                pages.push((name.to_owned(), page));
            } else if name.ends_with(FRESH) {
                let _ = fs::remove_file(file.path());
            }
        }
        Ok(pages)
    }
}

/// The names in it stay.
fn sync(dir: &Path) -> io::Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_what_was_written_last_until_it_is_struck_out() {
        let dir = tempfile::tempdir().unwrap();
        let pages = Pages::new(dir.path().join("a/b"));
        assert!(pages.read::<u32>().unwrap().is_empty());
        pages.write("one", &1_u32).unwrap();
        pages.write("one", &2_u32).unwrap();
        pages.write("one.json", &3_u32).unwrap();
        let mut all = pages.read::<u32>().unwrap();
        all.sort();
        assert_eq!(all, [("one".to_owned(), Ok(2)), ("one.json".to_owned(), Ok(3))]);
        pages.strike("one").unwrap();
        pages.strike("one").unwrap();
        assert_eq!(pages.read::<u32>().unwrap(), [("one.json".to_owned(), Ok(3))]);
    }

    #[test]
    fn damage_is_told_and_what_was_begun_only_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let pages = Pages::new(dir.path().to_owned());
        pages.write("whole", &1_u32).unwrap();
        fs::write(pages.path("damaged"), "{\"device\"").unwrap();
        fs::write(dir.path().join("begun.new"), "1").unwrap();
        fs::write(dir.path().join("README"), "of somebody else").unwrap();
        let mut all = pages.read::<u32>().unwrap();
        all.sort();
        let names: Vec<_> = all.iter().map(|(name, page)| (name.as_str(), page.is_ok())).collect();
        assert_eq!(names, [("damaged", false), ("whole", true)]);
        assert!(!dir.path().join("begun.new").exists() && dir.path().join("README").exists());
        // What is no directory is an error, not emptiness.
        assert!(Pages::new(dir.path().join("README")).read::<u32>().is_err());
    }
}
