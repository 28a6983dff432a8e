//! x
use super::Failed;
/// x
pub fn run(_json: bool) -> Result<(), Failed> {
    Ok(())
}
