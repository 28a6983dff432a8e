//! Limits: what they are, what a change would do, changes for a time.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use sublet_proto::v1::{
    Above, DiffRequest, DiffResponse, EffectiveLimit, ListLimitsRequest, ListLimitsResponse, ReloadRequest,
    ReloadResponse, SetRequest, SetResponse, UnsetRequest, UnsetResponse,
};
use tonic::Status;

use crate::{
    config::{LevelPath, Overlay, Source},
    driver::Driver,
    reload::{Difference, ReloadError, Reloader, report},
};

/// A change for a time that lasts longer is one for the configuration file.
const LASTING_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What the reloader does touches files of the kernel, and waits: never on a thread that calls are served by.
async fn blocking<T: Send + 'static>(
    reloader: &Arc<Reloader>,
    act: impl FnOnce(&Reloader) -> Result<T, ReloadError> + Send + 'static,
) -> Result<T, Status> {
    let reloader = reloader.clone();
    match tokio::task::spawn_blocking(move || act(&reloader)).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error @ ReloadError::Busy)) => Err(Status::aborted(error.to_string())),
        Ok(Err(error @ ReloadError::NotSet(_))) => Err(Status::not_found(error.to_string())),
        Ok(Err(error)) => Err(Status::failed_precondition(error.to_string())),
        Err(error) => Err(Status::internal(format!("the change failed: {error}"))),
    }
}

fn level(path: &str) -> Result<LevelPath, Status> {
    LevelPath::try_from(path).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn optional_level(path: &str) -> Result<Option<LevelPath>, Status> {
    if path.is_empty() { Ok(None) } else { level(path).map(Some) }
}

/// The configuration's key: the kernel's form with a dot is as good.
fn key(text: &str) -> String {
    text.replace('.', "_")
}

pub async fn reload(reloader: &Arc<Reloader>, request: ReloadRequest) -> Result<ReloadResponse, Status> {
    let changes = blocking(reloader, move |reloader| reloader.reload(request.end_those_above)).await?;
    let files = blocking(reloader, |reloader| Ok(reloader.files())).await?;
    Ok(ReloadResponse { changes, files })
}

pub async fn diff(reloader: &Arc<Reloader>, request: DiffRequest) -> Result<DiffResponse, Status> {
    let DiffRequest { text, base } = request;
    if text.len() as u64 > crate::config::CONFIG_MAX_BYTES {
        return Err(Status::invalid_argument(format!(
            "the text is larger than {} bytes",
            crate::config::CONFIG_MAX_BYTES
        )));
    }
    let other = (!text.is_empty()).then(|| Source { text, base: PathBuf::from(base) });
    let Difference { changes, replaced, above } =
        blocking(reloader, move |reloader| reloader.difference(other)).await?;
    let above = above.into_iter().map(|line| Above {
        group: line.group,
        setting: line.setting,
        limit: line.limit,
        observed: line.observed,
    });
    Ok(DiffResponse { changes, replaced, above: above.collect() })
}

pub async fn set(reloader: &Arc<Reloader>, request: SetRequest) -> Result<SetResponse, Status> {
    let SetRequest { path, assignments, lasting, end_those_above } = request;
    let path = level(&path)?;
    if assignments.is_empty() {
        return Err(Status::invalid_argument("no setting is named; write for example memory_max=512MiB"));
    }
    let lasting = lasting.and_then(|lasting| Duration::try_from(lasting).ok()).filter(|lasting| !lasting.is_zero());
    let lasting = lasting.ok_or_else(|| {
        Status::invalid_argument("no time is named until it expires by itself; write for example --for 10m")
    })?;
    if lasting > LASTING_MAX {
        let days = LASTING_MAX.as_secs() / 86400;
        return Err(Status::invalid_argument(format!(
            "longer than {days} days is a change for the configuration file"
        )));
    }
    let overlays = assignments
        .into_iter()
        .map(|assignment| Overlay { path: path.clone(), key: key(&assignment.key), value: assignment.value })
        .collect();
    let (changes, until) = blocking(reloader, move |reloader| reloader.set(overlays, lasting, end_those_above)).await?;
    Ok(SetResponse { changes, until: Some(until.into()) })
}

pub async fn unset(reloader: &Arc<Reloader>, request: UnsetRequest) -> Result<UnsetResponse, Status> {
    let UnsetRequest { path, key: of, end_those_above } = request;
    let path = optional_level(&path)?;
    let of = (!of.is_empty()).then(|| key(&of));
    let changes =
        blocking(reloader, move |reloader| reloader.unset(path.as_ref(), of.as_deref(), end_those_above)).await?;
    Ok(UnsetResponse { changes })
}

pub async fn list(
    reloader: &Arc<Reloader>,
    driver: &Arc<Driver>,
    request: ListLimitsRequest,
) -> Result<ListLimitsResponse, Status> {
    let path = optional_level(&request.path)?;
    let driver = driver.clone();
    // What is said to be in force is so.
    let audited = tokio::task::spawn_blocking(move || (driver.audit(), driver.groups()));
    let (findings, groups) = audited.await.map_err(|error| Status::internal(format!("look at the groups: {error}")))?;
    let limits = blocking(reloader, move |reloader| {
        let lines = reloader.limits(path.as_ref())?;
        Ok(lines.into_iter().map(|line| wire(line, reloader)).collect())
    });
    let mended = findings.iter().filter(|finding| finding.left.is_none()).map(ToString::to_string).collect();
    Ok(ListLimitsResponse { limits: limits.await?, mended, groups_left: groups.left })
}

fn wire(line: report::Line, reloader: &Reloader) -> EffectiveLimit {
    let is_set = !matches!(line.value.as_str(), "none" | "0s");
    EffectiveLimit {
        not_enforced: reloader.unenforced(line.key).filter(|_| is_set).unwrap_or_default().to_owned(),
        path: line.path.to_string(),
        key: line.key.to_owned(),
        value: line.value,
        from: line.from.unwrap_or_default(),
        until: line.until.map(|until: SystemTime| until.into()),
        otherwise: line.otherwise.unwrap_or_default(),
        enforced_by: line.enforced_by.to_owned(),
    }
}
