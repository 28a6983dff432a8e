//! A caller's message and the header beside it, up to where the call is accepted.

use std::{path::Path, sync::OnceLock, time::Duration};

use prost::Message as _;
use sublet_pool::{FunctionId, SUB_TENANT_MAX_BYTES, TenantId};
use sublet_proto::v1::InvokeRequest;
use sublet_supervisor::{catalogue::Catalogue, config::Config, driver::call::owner, fuzz::grpc_timeout};

use crate::target;

/// One function for sub-tenants, one that is shared.
const CONFIG: &str = r#"
[host]
state_dir = "/run/sublet"
[tenant.acme.sub_tenant]
[tenant.acme.function.own]
runtime = "stream"
layout = "static"
dir = "/srv/f"
command = ["/function/f"]
[tenant.acme.function.shared]
runtime = "stream"
layout = "static"
dir = "/srv/f"
command = ["/function/f"]
isolation = "shared"
"#;

fn catalogue() -> &'static Catalogue {
    static CATALOGUE: OnceLock<Catalogue> = OnceLock::new();
    CATALOGUE.get_or_init(|| {
        let config = Config::parse(CONFIG, Path::new("/")).expect("it is right");
        Catalogue::new(&config, |_, _| TenantId(0), |_, name, _| FunctionId(name.len() as u32))
    })
}

#[test]
fn message_is_refused_or_names_one_function_and_one_owner() {
    assert_eq!(catalogue().all().len(), 2);
    target!(8192).for_each(|input: &[u8]| {
        let Ok(request) = InvokeRequest::decode(input) else { return };
        assert_eq!(InvokeRequest::decode(request.encode_to_vec().as_slice()).as_ref(), Ok(&request));
        if let Some(timeout) = request.timeout {
            let timeout = Duration::try_from(timeout).unwrap_or(Duration::ZERO);
            // The pool's clock counts nanoseconds in 64 bits from the start of the process; what is longer is cut to the
            // function's own limits.
            assert!(timeout.checked_add(Duration::from_secs(1)).is_some());
        }
        let InvokeRequest { tenant, function, sub_tenant: label, .. } = &request;
        let Some(entry) = catalogue().function(tenant, function) else {
            assert!(tenant != "acme" || !["own", "shared"].contains(&function.as_str()));
            return;
        };
        let is_label = !label.is_empty() && label.len() <= SUB_TENANT_MAX_BYTES && !label.chars().any(char::is_control);
        match owner(entry, label) {
            Ok(owner) => {
                assert_eq!(owner.as_str(), label);
                assert_eq!((owner.is_shared(), is_label), (function == "shared", function == "own"));
            }
            Err(_) => assert!((function == "own" && !is_label) || (function == "shared" && !label.is_empty())),
        }
    });
}

#[test]
fn grpc_timeout_is_digits_and_a_unit_or_refused() {
    target!(64).for_each(|input: &[u8]| {
        let is_of_the_form = (2..=9).contains(&input.len())
            && input[..input.len() - 1].iter().all(u8::is_ascii_digit)
            && b"HMSmun".contains(&input[input.len() - 1]);
        match grpc_timeout(input) {
            Ok(timeout) => {
                assert!(is_of_the_form, "{input:?} is taken as {timeout:?}");
                assert!(timeout.is_some_and(|timeout| timeout <= Duration::from_secs(99_999_999 * 3600)));
            }
            Err(told) => {
                assert!(!is_of_the_form, "{input:?}: {told}");
                assert!(!told.message().chars().any(char::is_control), "{told:?}");
            }
        }
    });
}
