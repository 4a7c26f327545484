//! The `file` provider: an outbox on disk, one JSON line per notification, for demos and development.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;

use super::{ProviderSettings, ProviderSetupError};
use crate::ports::provider::{Accepted, Message, Provider, SendError};

/// Appends notifications to one file.
pub struct FileProvider {
    receipt: String,
    outbox: Arc<Mutex<Outbox>>,
}

/// The file. It is opened for each line, so that it can be moved away or deleted while the service runs.
struct Outbox {
    path: PathBuf,
    /// The last write failed, perhaps within its line.
    torn: bool,
}

impl FileProvider {
    /// A provider for the settings' file, which is made if need be, with its folders.
    ///
    /// # Errors
    /// A [`ProviderSetupError`] that names the path when it cannot be written to.
    pub fn new(settings: &ProviderSettings) -> Result<Self, ProviderSetupError> {
        let path = path_of(&settings.url).map_err(|problem| settings.at_fault("url", problem))?;
        let prepared = match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            Some(folder) => std::fs::create_dir_all(folder),
            None => Ok(()),
        };
        prepared.and_then(|()| open(&path)).and_then(|mut file| end_line(&path, &mut file)).map_err(|error| {
            settings.at_fault("url", format!("names `{}`, which cannot be written to: {error}", path.display()))
        })?;
        let outbox = Arc::new(Mutex::new(Outbox { path, torn: false }));
        Ok(Self { receipt: format!("file:{}", settings.name), outbox })
    }
}

#[async_trait]
impl Provider for FileProvider {
    async fn send(&self, message: &Message) -> Result<Accepted, SendError> {
        let line = line_of(message)
            .map_err(|error| SendError::Permanent(format!("the notification cannot be written as JSON: {error}")))?;
        // The lock goes into the blocking task: an attempt that is given up on still ends its line before the next.
        let mut outbox = Arc::clone(&self.outbox).lock_owned().await;
        let written = tokio::task::spawn_blocking(move || {
            outbox.append(&line).map_err(|error| format!("cannot append to `{}`: {error}", outbox.path.display()))
        })
        .await;
        match written {
            Ok(Ok(())) => Ok(Accepted { receipt: Some(self.receipt.clone()), ..Accepted::default() }),
            Ok(Err(reason)) => Err(SendError::Transient(reason)),
            Err(error) => Err(SendError::Unknown(format!("the write was interrupted: {error}"))),
        }
    }
}

impl Outbox {
    /// Writes the line at once: with append mode, that keeps lines whole beside other writers of the same file.
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let mut file = open(&self.path)?;
        if std::mem::replace(&mut self.torn, true) {
            end_line(&self.path, &mut file)?;
        }
        file.write_all(line)?;
        self.torn = false;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Ends a line that a crash or a full disk cut off, so that the next one begins at its beginning.
fn end_line(path: &Path, file: &mut File) -> io::Result<()> {
    if ends_within_line(path) { file.write_all(b"\n") } else { Ok(()) }
}

/// False too when it cannot be found out, as for a file that may only be written.
fn ends_within_line(path: &Path) -> bool {
    let last = || -> io::Result<u8> {
        let mut file = File::open(path)?;
        let mut byte = [b'\n'];
        if file.metadata()?.is_file() && file.seek(SeekFrom::End(0))? > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut byte)?;
        }
        Ok(byte[0])
    };
    last().is_ok_and(|byte| byte != b'\n')
}

fn line_of(message: &Message) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    // `data` is copied as it came, line breaks included; inside JSON strings there are none, so nothing is lost.
    for byte in &mut line {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    line.push(b'\n');
    Ok(line)
}

/// `file:relative/path`, `file:///absolute/path` or a bare path.
fn path_of(url: &str) -> Result<PathBuf, &'static str> {
    let path = match url.strip_prefix("file:") {
        Some(rest) => match rest.strip_prefix("//") {
            Some(absolute) if absolute.starts_with('/') => absolute,
            Some(_) => return Err("has a host: write `file:relative/path` or `file:///absolute/path`"),
            None => rest,
        },
        None => url,
    };
    if path.is_empty() || path.ends_with('/') {
        return Err("must name a file, such as `file:data/outbox.jsonl`");
    }
    Ok(PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::super::ProviderKind;
    use super::super::test_support::{self, settings};
    use super::*;
    use crate::domain::channel::Channel;

    fn provider(url: String) -> Result<FileProvider, ProviderSetupError> {
        FileProvider::new(&ProviderSettings { name: "outbox".into(), ..settings(ProviderKind::File, &url) })
    }

    fn message(id: String) -> Message {
        Message {
            id,
            body: "x\n".repeat(10_000),
            data: RawValue::from_string("{\n  \"amount\": 1e3\n}".into()).expect("json"),
            ..test_support::message(Channel::Sms, Some("+15550100123"))
        }
    }

    fn lines(path: &Path) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(path).expect("outbox");
        text.lines().map(|line| serde_json::from_str(line).expect("a whole line")).collect()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn concurrent_writers_give_whole_lines() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a/b/out.jsonl");
        let build = || provider(format!("file://{}", path.display())).expect("provider");
        let writers: Vec<_> = [(0, build()), (1, build())]
            .into_iter()
            .map(|(writer, provider)| {
                tokio::spawn(async move {
                    for n in 0..50 {
                        let accepted = provider.send(&message(format!("{writer}-{n}"))).await.expect("accepted");
                        assert_eq!(accepted.receipt.as_deref(), Some("file:outbox"));
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.expect("writer");
        }
        let mut ids: Vec<_> = lines(&path).into_iter().map(|line| line["id"].to_string()).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 100);
        assert!(std::fs::read_to_string(&path).expect("outbox").contains("1e3"));
    }

    #[tokio::test]
    async fn a_line_that_was_cut_off_does_not_spoil_the_next() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("out.jsonl");
        std::fs::write(&path, "{\"id\":\"whole\"}\n{\"id\":\"cut o").expect("file");
        let provider = provider(path.display().to_string()).expect("provider");
        for id in ["1", "2"] {
            provider.send(&message(id.into())).await.expect("accepted");
        }
        let text = std::fs::read_to_string(&path).expect("outbox");
        assert_eq!(text.lines().count(), 4);
        assert!(text.lines().skip(2).all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    }

    #[tokio::test]
    async fn trouble_names_the_path() {
        let folder = tempfile::tempdir().expect("folder");
        let error = provider(format!("file:{}", folder.path().display())).err().expect("a folder is no file");
        assert!(error.key == "url" && error.problem.contains(&folder.path().display().to_string()), "{error}");

        let inner = folder.path().join("inner");
        let provider = provider(inner.join("out.jsonl").display().to_string()).expect("provider");
        std::fs::remove_dir_all(&inner).expect("removed");
        let error = provider.send(&message("1".into())).await.expect_err("the folder is gone");
        assert!(matches!(&error, SendError::Transient(reason) if reason.contains("out.jsonl")), "{error}");
    }

    #[test]
    fn paths_come_in_three_forms() {
        for (url, path) in
            [("file:data/o.jsonl", "data/o.jsonl"), ("file:///tmp/o.jsonl", "/tmp/o.jsonl"), ("o.jsonl", "o.jsonl")]
        {
            assert_eq!(path_of(url), Ok(PathBuf::from(path)));
        }
        for bad in ["", "file:", "file://", "file://host/o.jsonl", "data/"] {
            assert!(path_of(bad).is_err(), "{bad}");
        }
    }
}
