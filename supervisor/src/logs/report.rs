//! START, END and REPORT, as users of Lambda know them.

use std::time::Duration;

/// What REPORT says.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// Id of the call.
    pub request: &'a str,
    /// From delivery to its end.
    pub running: Duration,
    /// The function's `memory_max`, in bytes.
    pub memory_max: u64,
    /// The most its worker has had, in bytes.
    pub memory_peak: u64,
    /// What making its worker took, when it was made for this call.
    pub starting: Option<Duration>,
    /// What it ended as, when not with an answer: "error", "timeout" or "cancelled"; and which error.
    pub status: Option<(&'a str, &'a str)>,
}

/// The first line of a call. Revisions take the place of versions.
pub fn start(request: &str, revision: &str) -> String {
    format!("START RequestId: {request} Version: {revision}\n")
}

/// The last two lines of a call.
pub fn end(report: &Report<'_>) -> String {
    let Report { request, running, memory_max, memory_peak, starting, status } = *report;
    let millis = |time: Duration| time.as_secs_f64() * 1000.0;
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let mut text = format!(
        "END RequestId: {request}\nREPORT RequestId: {request}\tDuration: {:.2} ms\tBilled Duration: {} ms\tMemory Size: {} \
         MB\tMax Memory Used: {} MB",
        millis(running),
        running.as_micros().div_ceil(1000),
        mib(memory_max),
        mib(memory_peak),
    );
    if let Some(starting) = starting {
        text += &format!("\tInit Duration: {:.2} ms", millis(starting));
    }
    if let Some((status, kind)) = status {
        text += &format!("\tStatus: {status}");
        if !kind.is_empty() {
            text += &format!("\tError Type: {kind}");
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_lambda() {
        let report = Report {
            request: "ab",
            running: Duration::from_micros(12_345),
            memory_max: 128 << 20,
            memory_peak: (30 << 20) + 1,
            starting: None,
            status: None,
        };
        assert_eq!(start("ab", "12345678"), "START RequestId: ab Version: 12345678\n");
        assert_eq!(
            end(&report),
            "END RequestId: ab\nREPORT RequestId: ab\tDuration: 12.35 ms\tBilled Duration: 13 ms\tMemory Size: 128 MB\tMax \
             Memory Used: 31 MB\n"
        );
        let cold = Report { starting: Some(Duration::from_millis(7)), status: Some(("error", "CRASH")), ..report };
        assert!(end(&cold).ends_with("\tInit Duration: 7.00 ms\tStatus: error\tError Type: CRASH\n"));
    }
}
