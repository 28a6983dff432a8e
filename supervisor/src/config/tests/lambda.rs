//! Rules of functions with the Lambda Runtime API.

use super::*;

fn f(key: &str) -> String {
    format!("{F}.{key}")
}

fn command(changes: &[(&str, &str)]) -> String {
    let runtime = [(&*f("command"), "")];
    resize(&[&runtime, changes].concat()).command.join(" ")
}

#[test]
fn name_of_a_runtime_stands_for_its_program() {
    let (runtime, handler, layout) = (f("runtime"), f("handler"), f("layout"));
    assert_eq!(command(&[(&runtime, "\"lambda\"")]), "/function/bootstrap");
    let python = [(&*layout, "\"host\""), (&*runtime, "\"python3.11\""), (&*handler, "\"app.handler\"")];
    assert_eq!(command(&python), "/usr/bin/python3.11 -m awslambdaric app.handler");
    let node = [(&*layout, "\"host\""), (&*runtime, "\"nodejs22.x\""), (&*handler, "\"index.handler\"")];
    assert_eq!(command(&node), "/usr/bin/node /function/node_modules/aws-lambda-ric/bin/index.mjs index.handler");
    let own = [(&*runtime, "\"python3.11\""), (&*handler, "\"app.handler\"")];
    assert_eq!(resize(&own).command, ["/function/resize"], "what is written is what runs");
}

#[test]
fn handler_is_of_a_module_and_of_runtimes_that_have_one() {
    let (runtime, handler) = (f("runtime"), f("handler"));
    let example = "write what Lambda would be told, such as handler = \"app.handler\"";
    only(&[(&runtime, "\"python3.11\"")], &format!("{F}.handler: missing; {example}"));
    only(
        &[(&handler, "\"app.handler\"")],
        &format!(
            "{F}.handler = \"app.handler\": only for runtimes with the Lambda Runtime API; \
             remove it, or choose such a runtime"
        ),
    );
    for wrong in ["", "handler", "app handler"] {
        only(
            &[(&runtime, "\"nodejs22.x\""), (&handler, &format!("{wrong:?}"))],
            &format!("{F}.handler = {wrong:?}: not of the form module.function; {example}"),
        );
    }
    let long = format!("\"app.{}\"", "h".repeat(1024));
    let told = told(&[(&runtime, "\"python3.11\""), (&handler, &long)]);
    assert!(told.len() == 1 && told[0].contains("...: not of the form module.function"), "{told:?}");
    resize(&[(&runtime, "\"lambda\""), (&handler, "\"any\"")]);
}

#[test]
fn what_the_clients_are_told_is_not_for_the_operator_to_say() {
    let (runtime, env) = (f("runtime"), f("env"));
    for name in ["AWS_LAMBDA_RUNTIME_API", "AWS_LAMBDA_MAX_CONCURRENCY", "_HANDLER"] {
        let told = told(&[(&runtime, "\"lambda\""), (&env, &format!("{{ {name} = \"x\" }}"))]);
        assert!(told.len() == 1 && told[0].starts_with(&format!("{F}.env.{name}")), "{told:?}");
    }
    resize(&[(&env, "{ AWS_LAMBDA_RUNTIME_API = \"x\" }")]);
}

#[test]
fn streamed_answers_have_a_bound_of_their_own() {
    assert_eq!(resize(&[]).stream_max.bytes(), 200 << 20);
    bounded(&[], &f("stream_max"), "\"0B\"", "\"1B\"", "\"1048576GiB\"", "\"1048577GiB\"");
}
