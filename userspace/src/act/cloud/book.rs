//! Which Elastic IPs may be on this node's interfaces on its account, on disk: no kernel remembers that for a daemon
//! that ends, and EC2 says nothing of who wanted what.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{act::pages::Pages, core::agent::Footprint, model::Tag};

/// One page for each resource: written before EC2 is asked to associate, struck out when it was read back that it is
/// not here. Outlives a membership. Cheap to clone.
#[derive(Clone)]
pub struct EipBook(Arc<Inner>);

struct Inner {
    pages: Pages,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// As on disk. None: it cannot be read.
    noted: BTreeMap<Tag, Option<Footprint>>,
    /// Could not be noted, and that was told.
    told: BTreeSet<Tag>,
}

impl EipBook {
    /// What earlier lives noted, and for people, what of it cannot be read.
    pub fn open(dir: PathBuf) -> (Self, Vec<String>) {
        let pages = Pages::new(dir);
        let mut noted = BTreeMap::new();
        let mut complaints = Vec::new();
        let all = pages.read::<Footprint>().unwrap_or_else(|error| {
            complaints.push(format!(
                "cannot read in {} which Elastic IPs may be left on this node: {error}; look at its interfaces in EC2, \
                 and take off by hand what is not in service here",
                pages.dir().display()
            ));
            Vec::new()
        });
        for (name, page) in all {
            let Ok(tag) = name.parse::<Tag>() else { continue };
            let page = page.inspect_err(|error| {
                complaints.push(format!(
                    "{} cannot be read ({error}): if the Elastic IP of '{tag}' is left on an interface of this node \
                     though it is not in service here, take it off by hand, and delete that file",
                    pages.path(&name).display()
                ));
            });
            noted.insert(tag, page.ok());
        }
        let known = Mutex::new(Known { noted, told: BTreeSet::new() });
        (Self(Arc::new(Inner { pages, known })), complaints)
    }

    /// What may be here, as far as anybody knows. None: there is a page, and it cannot be read.
    pub fn noted(&self) -> BTreeMap<Tag, Option<Footprint>> {
        self.0.lock().noted.clone()
    }

    /// From now on it may be there. On disk when this returns; where that fails the work goes on, as an Elastic IP in
    /// service is worth more than a note of it.
    ///
    /// # Errors
    /// For people, once for each resource until it can be noted again.
    pub async fn note(&self, tag: &Tag, footprint: &Footprint) -> Result<(), String> {
        if self.0.lock().noted.get(tag) == Some(&Some(footprint.clone())) {
            return Ok(());
        }
        let (inner, name, page) = (self.0.clone(), tag.clone(), footprint.clone());
        let written = blocking(move || inner.pages.write(name.as_str(), &page)).await;
        let mut known = self.0.lock();
        match written {
            Ok(()) => {
                known.noted.insert(tag.clone(), Some(footprint.clone()));
                known.told.remove(tag);
                Ok(())
            }
            Err(error) if known.told.insert(tag.clone()) => Err(format!(
                "cannot note in {} that {} may be on {} from now on: {error}; after a restart of vipd nobody would know \
                 that it has to be taken off",
                self.0.pages.dir().display(),
                footprint.address,
                footprint.device
            )),
            Err(_) => Ok(()),
        }
    }

    /// It was read back that it is not here.
    ///
    /// # Errors
    /// When the page stays: then the next life looks once more.
    pub async fn strike(&self, tag: &Tag) -> Result<(), String> {
        if !self.0.lock().noted.contains_key(tag) {
            return Ok(());
        }
        let (inner, name) = (self.0.clone(), tag.clone());
        let struck = blocking(move || inner.pages.strike(name.as_str())).await;
        struck.map_err(|error| {
            format!("cannot remove {}: {error}; remove it", self.0.pages.path(tag.as_str()).display())
        })?;
        self.0.lock().noted.remove(tag);
        Ok(())
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Known> {
        // Each change is one call: whole, wherever a panic was.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    // It is lost only with the runtime.
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|lost| Err(io::Error::other(lost)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn tag(text: &str) -> Tag {
        text.parse().unwrap()
    }

    fn on(device: &str) -> Footprint {
        let address = [198, 51, 100, 7].into();
        Footprint { address, region: None, device: device.to_owned(), others: vec!["eth7".to_owned()] }
    }

    #[tokio::test]
    async fn the_next_life_knows_what_this_one_noted_last() {
        let dir = tempfile::tempdir().unwrap();
        let open = || EipBook::open(dir.path().join("elastic-ips"));
        let (book, complaints) = open();
        assert!(book.noted().is_empty() && complaints.is_empty());
        book.note(&tag("a"), &on("eth0")).await.unwrap();
        book.note(&tag("a"), &on("eth1")).await.unwrap();
        book.note(&tag("b"), &on("eth0")).await.unwrap();
        book.strike(&tag("b")).await.unwrap();
        book.strike(&tag("b")).await.unwrap();
        let (next, complaints) = open();
        assert_eq!(next.noted(), [(tag("a"), Some(on("eth1")))].into());
        assert_eq!(complaints, Vec::<String>::new());
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_told_and_replaced_by_the_next_note() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.json"), "{\"address\": \"198.51").unwrap();
        let (book, complaints) = EipBook::open(dir.path().to_owned());
        assert_eq!(book.noted(), [(tag("a"), None)].into());
        assert!(complaints.len() == 1 && complaints[0].contains("a.json"), "{complaints:?}");
        book.note(&tag("a"), &on("eth0")).await.unwrap();
        assert_eq!(EipBook::open(dir.path().to_owned()).0.noted(), [(tag("a"), Some(on("eth0")))].into());
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_told_once_and_stops_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("elastic-ips");
        fs::write(&file, "no directory").unwrap();
        let (book, complaints) = EipBook::open(file.clone());
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert!(book.note(&tag("a"), &on("eth0")).await.unwrap_err().contains("198.51.100.7"));
        assert_eq!(book.note(&tag("a"), &on("eth0")).await, Ok(()));
        assert!(book.noted().is_empty());
        fs::remove_file(&file).unwrap();
        book.note(&tag("a"), &on("eth0")).await.unwrap();
        assert_eq!(EipBook::open(file).0.noted().len(), 1);
    }
}
