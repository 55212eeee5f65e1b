//! What has to outlive the process: one file with crash-safe transactions.
//!
//! [`Storage`] keeps objects by kind and id, and queues of messages that wait for their
//! delivery. What a call has returned is on the disk. It knows nothing of what it keeps: values
//! are bytes, and whoever wrote them knows how to read them. It neither caches for others nor
//! waits for anything but the disk, so callers that must not block give it a thread.
//!
//! ```
//! use parlor_storage::Storage;
//!
//! let storage = Storage::in_memory()?;
//! storage.put("ingress", "IN_1", b"state")?;
//! assert_eq!(storage.get("ingress", "IN_1")?.as_deref(), Some(&b"state"[..]));
//!
//! let ids = storage.enqueue(&["first", "second"])?;
//! storage.dequeue(&ids[..1])?;
//! assert_eq!(storage.queued()?, [(ids[1], b"second".to_vec())]);
//! # Ok::<(), parlor_storage::StorageError>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, backends::InMemoryBackend};
use std::path::{Path, PathBuf};

/// Name of the file in the data directory.
pub const FILE_NAME: &str = "parlor.redb";
/// Pages that are held in memory, bytes.
const CACHE_BYTES: usize = 16 << 20;

const OBJECTS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("objects");
const QUEUE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("webhooks");
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
const NEXT_ID: &str = "next webhook";

/// Why something could not be kept or read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum StorageError {
    #[error("cannot make the data directory {0}: {1}")]
    Directory(PathBuf, #[source] std::io::Error),
    #[error("cannot open {0}: {1}")]
    Open(PathBuf, #[source] redb::Error),
    #[error("storage failed: {0}")]
    Failed(#[from] redb::Error),
}

/// A change of one object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Change<'a> {
    Put { kind: &'a str, id: &'a str, value: &'a [u8] },
    Remove { kind: &'a str, id: &'a str },
}

/// Objects and queues on one disk, or in memory only.
#[derive(Debug)]
pub struct Storage {
    database: Database,
}

impl Storage {
    /// Opens the file in a data directory, or makes both. A file that a dead process left in
    /// the middle of a write is as it was after its last whole transaction. Another process that
    /// has it open is an error.
    pub fn open(directory: &Path) -> Result<Storage, StorageError> {
        std::fs::create_dir_all(directory)
            .map_err(|error| StorageError::Directory(directory.to_owned(), error))?;
        let path = directory.join(FILE_NAME);
        let database = redb::Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create(&path)
            .map_err(|error| StorageError::Open(path, error.into()))?;
        Self::prepare(database)
    }

    /// A storage that ends with the process.
    pub fn in_memory() -> Result<Storage, StorageError> {
        let database = redb::Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(InMemoryBackend::new())
            .map_err(redb::Error::from)?;
        Self::prepare(database)
    }

    fn prepare(database: Database) -> Result<Storage, StorageError> {
        let storage = Storage { database };
        storage.write(|transaction| {
            transaction.open_table(OBJECTS)?;
            transaction.open_table(QUEUE)?;
            transaction.open_table(COUNTERS)?;
            Ok(())
        })?;
        Ok(storage)
    }

    fn write<T>(
        &self,
        act: impl FnOnce(&redb::WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StorageError> {
        let transaction = self.database.begin_write().map_err(redb::Error::from)?;
        let result = act(&transaction)?;
        transaction.commit().map_err(redb::Error::from)?;
        Ok(result)
    }

    fn read<T>(
        &self,
        act: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StorageError> {
        let transaction = self.database.begin_read().map_err(redb::Error::from)?;
        Ok(act(&transaction)?)
    }

    /// Keeps an object, in place of what had its kind and id.
    pub fn put(&self, kind: &str, id: &str, value: &[u8]) -> Result<(), StorageError> {
        self.write(|transaction| {
            transaction.open_table(OBJECTS)?.insert((kind, id), value)?;
            Ok(())
        })
    }

    /// Carries out all of these changes or none.
    pub fn commit(&self, changes: &[Change<'_>]) -> Result<(), StorageError> {
        self.write(|transaction| {
            let mut objects = transaction.open_table(OBJECTS)?;
            for change in changes {
                match change {
                    Change::Put { kind, id, value } => drop(objects.insert((*kind, *id), *value)?),
                    Change::Remove { kind, id } => drop(objects.remove((*kind, *id))?),
                }
            }
            Ok(())
        })
    }

    /// The object of this kind and id.
    pub fn get(&self, kind: &str, id: &str) -> Result<Option<Vec<u8>>, StorageError> {
        self.read(|transaction| {
            let found = transaction.open_table(OBJECTS)?.get((kind, id))?;
            Ok(found.map(|value| value.value().to_vec()))
        })
    }

    /// Removes an object. Whether there was one.
    pub fn remove(&self, kind: &str, id: &str) -> Result<bool, StorageError> {
        self.write(|transaction| {
            let mut objects = transaction.open_table(OBJECTS)?;
            let removed = objects.remove((kind, id))?.is_some();
            Ok(removed)
        })
    }

    /// Every object of a kind, by id.
    pub fn list(&self, kind: &str) -> Result<Vec<(String, Vec<u8>)>, StorageError> {
        self.read(|transaction| {
            let objects = transaction.open_table(OBJECTS)?;
            let mut found = Vec::new();
            for entry in objects.range((kind, "")..)? {
                let (key, value) = entry?;
                let (of_kind, id) = key.value();
                if of_kind != kind {
                    break;
                }
                found.push((id.to_owned(), value.value().to_vec()));
            }
            Ok(found)
        })
    }

    /// Appends messages to the queue, all or none. Their ids ascend and are never used again.
    pub fn enqueue(&self, messages: &[impl AsRef<[u8]>]) -> Result<Vec<u64>, StorageError> {
        self.write(|transaction| {
            let mut counters = transaction.open_table(COUNTERS)?;
            let first = counters.get(NEXT_ID)?.map_or(0, |next| next.value());
            let ids: Vec<u64> = (first..).take(messages.len()).collect();
            counters.insert(NEXT_ID, first.saturating_add(messages.len() as u64))?;
            let mut queue = transaction.open_table(QUEUE)?;
            for (id, message) in ids.iter().zip(messages) {
                queue.insert(id, message.as_ref())?;
            }
            Ok(ids)
        })
    }

    /// Forgets messages of the queue. Ids that it does not have are passed over.
    pub fn dequeue(&self, ids: &[u64]) -> Result<(), StorageError> {
        self.write(|transaction| {
            let mut queue = transaction.open_table(QUEUE)?;
            for id in ids {
                queue.remove(id)?;
            }
            Ok(())
        })
    }

    /// What waits in the queue, oldest first.
    pub fn queued(&self) -> Result<Vec<(u64, Vec<u8>)>, StorageError> {
        self.read(|transaction| {
            let queue = transaction.open_table(QUEUE)?;
            let mut found = Vec::new();
            for entry in queue.iter()? {
                let (id, message) = entry?;
                found.push((id.value(), message.value().to_vec()));
            }
            Ok(found)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("parlor-storage-{name}"));
        let _ = std::fs::remove_dir_all(&directory);
        directory
    }

    #[test]
    fn what_was_kept_is_there_when_the_file_is_opened_again() {
        let directory = directory("again");
        let storage = Storage::open(&directory).unwrap();
        storage.put("a", "2", b"two").unwrap();
        storage.put("a", "1", b"one").unwrap();
        storage.put("b", "1", b"other").unwrap();
        storage.enqueue(&["x", "y", "z"]).unwrap();
        storage.dequeue(&[1, 99]).unwrap();
        let put = |id| Change::Put { kind: "c", id, value: b"c" };
        storage.commit(&[put("1"), put("2"), Change::Remove { kind: "c", id: "1" }]).unwrap();
        assert_eq!(storage.list("c").unwrap(), [("2".into(), b"c".to_vec())]);
        assert!(storage.remove("b", "1").unwrap() && !storage.remove("b", "1").unwrap());
        drop(storage);
        let storage = Storage::open(&directory).unwrap();
        let list = storage.list("a").unwrap();
        assert_eq!(list, [("1".into(), b"one".to_vec()), ("2".into(), b"two".to_vec())]);
        assert!(storage.list("b").unwrap().is_empty() && storage.list("").unwrap().is_empty());
        assert_eq!(storage.queued().unwrap(), [(0, b"x".to_vec()), (2, b"z".to_vec())]);
        storage.dequeue(&[0, 2]).unwrap();
        assert_eq!(storage.enqueue(&["later"]).unwrap(), [3]);
    }

    #[test]
    fn a_file_that_is_open_elsewhere_or_is_none_is_refused() {
        let directory = directory("open");
        let _first = Storage::open(&directory).unwrap();
        let second = Storage::open(&directory).unwrap_err().to_string();
        assert!(second.contains(FILE_NAME), "{second}");
        let junk = self::directory("junk");
        std::fs::create_dir_all(&junk).unwrap();
        std::fs::write(junk.join(FILE_NAME), b"not a database, but long enough to be read")
            .unwrap();
        assert!(Storage::open(&junk).is_err());
    }
}
