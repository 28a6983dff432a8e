//! What a worker remembers: in memory, in /tmp, in a thread that goes on between calls.

use std::{
    collections::BTreeMap,
    env, fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::Outcome;

/// A worker's state.
#[derive(Debug, Default)]
pub struct State {
    memory: BTreeMap<String, String>,
    calls: u64,
    ticks: Option<Arc<AtomicU64>>,
    held: Vec<Vec<u8>>,
    leaked: Vec<fs::File>,
}

impl State {
    /// Who it is, one fact per line.
    pub fn id(&mut self) -> Outcome {
        self.calls += 1;
        let var = |name: &str| env::var(name).unwrap_or_default();
        let host = nix::unistd::gethostname().map_err(|e| e.to_string())?;
        Ok(format!(
            "tenant={}\nfunction={}\nsub_tenant={}\npid={}\nuid={}\nhost={}\ncalls={}\n",
            var("SUBLET_TENANT"),
            var("SUBLET_FUNCTION"),
            var("SUBLET_SUB_TENANT"),
            std::process::id(),
            nix::unistd::getuid(),
            host.to_string_lossy(),
            self.calls
        )
        .into_bytes())
    }

    /// Remembers a value in memory and in /tmp.
    pub fn put(&mut self, key: &str, value: &str) -> Outcome {
        self.memory.insert(key.to_owned(), value.to_owned());
        fs::write(format!("/tmp/{key}"), value).map_err(|e| format!("write /tmp/{key}: {e}"))?;
        Ok(value.as_bytes().to_vec())
    }

    /// Keeps so many MiB more.
    pub fn hold(&mut self, mib: u64) -> Outcome {
        for _ in 0..mib {
            self.held.push(vec![0xa5; 1024 * 1024]);
        }
        Ok(format!("holds {} MiB", self.held.len()).into_bytes())
    }

    /// Gives all of it back.
    pub fn let_go(&mut self) -> Outcome {
        self.held = Vec::new();
        Ok(b"let go".to_vec())
    }

    /// Opens so many descriptors more, and keeps them.
    pub fn leak(&mut self, count: u64) -> Outcome {
        for at in 0..count {
            self.leaked.push(fs::File::open("/dev/null").map_err(|e| format!("open descriptor {at}: {e}"))?);
        }
        Ok(format!("holds {}", self.leaked.len()).into_bytes())
    }

    /// `memory/file`, with `-` for what is not there.
    pub fn get(&self, key: &str) -> Outcome {
        let file = fs::read_to_string(format!("/tmp/{key}")).unwrap_or_else(|_| "-".into());
        Ok(format!("{}/{file}", self.memory.get(key).map_or("-", String::as_str)).into_bytes())
    }

    /// Starts a thread that counts for as long as it may run.
    pub fn background(&mut self) -> Outcome {
        let ticks = Arc::new(AtomicU64::new(0));
        self.ticks = Some(ticks.clone());
        std::thread::spawn(move || {
            loop {
                ticks.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Ok(b"counting".to_vec())
    }

    /// How far that thread has come.
    pub fn count(&self) -> Outcome {
        let ticks = self.ticks.as_ref().ok_or("no background thread")?;
        Ok(ticks.load(Ordering::Relaxed).to_string().into_bytes())
    }
}
