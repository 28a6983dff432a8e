//! Single settings laid over what a file says: `sublet set`. Done to the text's raw form, so that everything that is
//! checked of a file is checked of this too, and told by the same names.

use std::fmt;

use super::{
    origin::LevelPath,
    problem::Problem,
    raw::{RawConfig, RawTenant},
    scalar::{Maybe, Scalar},
    settings::{Changes, Row},
    types::{RawFunction, RawHost, RawSubTenant},
};

/// One setting of one level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// The level.
    pub path: LevelPath,
    /// The configuration's key.
    pub key: String,
    /// As written: `512MiB`, `20`.
    pub value: String,
}

impl fmt::Display for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} = {}", self.path.table(), self.key, self.value)
    }
}

/// The table of a level.
pub fn rows(path: &LevelPath) -> Vec<&'static Row> {
    match path {
        LevelPath::Host => RawHost::rows().iter().collect(),
        LevelPath::Tenant(_) => RawTenant::rows().collect(),
        LevelPath::SubTenants(_) | LevelPath::Class(..) | LevelPath::Id(..) => RawSubTenant::rows().iter().collect(),
        LevelPath::Function(..) => RawFunction::rows().iter().collect(),
    }
}

/// Settings of a level that can be changed for a time.
pub fn changeable(path: &LevelPath) -> Vec<&'static str> {
    rows(path).into_iter().filter(|row| row.changes == Changes::Set).map(|row| row.key).collect()
}

/// Lays them over a raw configuration, later ones over earlier ones.
///
/// # Errors
/// Each that names a level or a setting that is not there.
pub fn lay(raw: &mut RawConfig, overlays: &[Overlay]) -> Result<(), Vec<Problem>> {
    let problems: Vec<Problem> = overlays.iter().filter_map(|overlay| lay_one(raw, overlay).err()).collect();
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn lay_one(raw: &mut RawConfig, overlay: &Overlay) -> Result<(), Problem> {
    let Overlay { path, key, value } = overlay;
    let known = changeable(path);
    if !known.contains(&key.as_str()) {
        let what = format!("not a setting of {path} that can be changed for a time");
        let remedy = format!("choose one of {}", known.join(", "));
        return Err(Problem::new(format!("{}.{key}", path.table()), Some(value.clone()), what, remedy));
    }
    let missing =
        |what: String| Problem::new(path.to_string(), None, what, "`sublet limits` lists the levels there are");
    let slot = slot(raw, path, key).ok_or_else(|| missing("the configuration has no such level".into()))?;
    *slot = Some(scalar(value));
    Ok(())
}

fn slot<'a>(raw: &'a mut RawConfig, path: &LevelPath, key: &str) -> Option<&'a mut Maybe> {
    let Some(tenant) = path.tenant() else { return raw.host.slot(key) };
    let tenant = raw.tenant.get_mut(tenant.as_str())?;
    match path {
        LevelPath::Host => None,
        LevelPath::Tenant(_) => tenant.slot(key),
        LevelPath::SubTenants(_) => tenant.sub_tenant.slot(key),
        LevelPath::Class(_, class) => tenant.class.get_mut(class.as_str())?.slot(key),
        // Any label may have a table of its own.
        LevelPath::Id(_, label) => tenant.id.entry(label.clone()).or_default().slot(key),
        LevelPath::Function(_, function) => tenant.function.get_mut(function.as_str())?.slot(key),
    }
}

/// On a command line nobody writes TOML's quotes.
fn scalar(value: &str) -> Scalar {
    let plain = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    match (value.parse::<bool>(), plain.parse::<i64>()) {
        (Ok(flag), _) => Scalar::Bool(flag),
        // Whole CPUs are a text in TOML, and the unit errors say what is missing of the others.
        (_, Ok(number)) => Scalar::Integer(number),
        (_, Err(_)) => Scalar::Text(plain.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changeable_setting_is_one_of_its_level() {
        let mut raw = RawConfig::default();
        raw.tenant.entry("a".into()).or_default().class.entry("c".into()).or_default();
        raw.tenant.entry("a".into()).or_default().function.entry("f".into()).or_default();
        for path in
            ["host", "tenant/a", "tenant/a/sub_tenant", "tenant/a/class/c", "tenant/a/id/x", "tenant/a/function/f"]
        {
            let path = LevelPath::try_from(path).expect(path);
            for key in changeable(&path) {
                assert!(slot(&mut raw, &path, key).is_some(), "{path} {key}");
            }
        }
    }

    #[test]
    fn values_need_no_quotes() {
        for (written, taken) in [
            ("20", Scalar::Integer(20)),
            ("\"2\"", Scalar::Integer(2)),
            ("512MiB", Scalar::Text("512MiB".into())),
            ("\"512MiB\"", Scalar::Text("512MiB".into())),
            ("false", Scalar::Bool(false)),
            ("\"false\"", Scalar::Text("false".into())),
        ] {
            assert_eq!(scalar(written), taken, "{written}");
        }
    }

    #[test]
    fn levels_and_settings_that_are_not_there_are_told() {
        let mut raw = RawConfig::default();
        raw.tenant.entry("a".into()).or_default();
        let overlay = |path: &str, key: &str| Overlay {
            path: LevelPath::try_from(path).expect(path),
            key: key.into(),
            value: "1".into(),
        };
        let told =
            |path: &str, key: &str| lay(&mut raw.clone(), &[overlay(path, key)]).expect_err("refused")[0].to_string();
        assert!(told("tenant/b", "weight").starts_with("tenant/b: the configuration has no such level"));
        assert!(told("tenant/a/class/gold", "weight").starts_with("tenant/a/class/gold: "));
        assert!(told("tenant/a", "runtime").contains("choose one of workers_max"));
        assert!(told("host", "uid_base").contains("can be changed for a time"));
        assert_eq!(lay(&mut raw, &[overlay("tenant/a/id/new", "weight")]), Ok(()));
        assert_eq!(raw.tenant["a"].id["new"].weight, Some(Scalar::Integer(1)));
    }
}
