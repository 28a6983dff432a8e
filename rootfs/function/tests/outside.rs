//! A program of its own for one test, because it is about a descriptor of the whole process: in the other tests' process
//! number 3 may be a socket of theirs.

#[test]
fn program_that_sublet_did_not_start_is_told_so() {
    let error = sublet_function::serve(|_| Ok::<_, String>("")).expect_err("there is no channel");
    assert!(error.to_string().contains("descriptor 3 is not a channel"), "{error}");
    assert_eq!(sublet_function::sub_tenant(), None);
    assert_eq!(sublet_function::token().expect("nothing is read"), None);
}
