use proptest::prelude::*;

use super::*;

fn refusal(text: &str) -> String {
    match Location::parse(text) {
        Ok(location) => panic!("{text:?} was taken for {location:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn locations_are_parsed_and_printed() -> Result<(), LocationError> {
    let s3 = |bucket: &str, prefix: &str| Location::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() };
    assert_eq!(Location::parse("s3://lake/p/q/")?, s3("lake", "p/q"));
    assert_eq!(Location::parse("s3://Old_Bucket.x")?, s3("Old_Bucket.x", ""));
    assert_eq!(Location::parse("s3://lake")?.to_string(), "s3://lake");
    assert_eq!(Location::parse("file:///x y")?, Location::Local("/x y".into()));
    for path in [
        "./x",
        "x",
        ".",
        "..",
        "/",
        "a:b",
        "x/~y",
        "x@y",
        "100%",
        "a$",
        "price$1",
        "-x",
        "C",
        "é/ü",
        "s3",
        "s3/x",
        "a:b/c",
        "x;y",
        "x//y",
        "{x",
        "a{",
        "amazonaws.com",
        "a/b:/c",
        "x@y/z",
    ] {
        assert_eq!(Location::parse(path)?, Location::Local(path.into()));
    }
    for odd in
        ["s3//b", "s3:/b", "host:/x", "{env}/x", "$HOME/x", "gs://b", "~/x", "a\\b", "lake.s3.amazonaws.com", "C:/x"]
    {
        let plain = format!("./{odd}");
        assert_eq!(Location::parse(&plain)?, Location::Local(plain.into()), "a folder that is really called so");
    }
    Ok(())
}

#[test]
fn text_that_cannot_be_meant_is_refused_with_the_likely_intention() {
    for (text, meant) in [
        ("", "is empty; give a folder or s3://bucket/prefix"),
        ("  ", "is empty"),
        (" x", "did you mean 'x'?"),
        ("s3://lake ", "did you mean 's3://lake'?"),
        ("a\nb", "control character U+000A"),
        ("a\u{1b}[2J", "control character U+001B"),
        ("a\0b", "control character U+0000"),
        ("\"/data/x\"", "did you mean /data/x without them?"),
        ("'s3://lake'", "did you mean s3://lake without them?"),
        ("~", "only a shell replaces"),
        ("~/x/y", "such as /home/you/x/y"),
        ("~you/x", "only a shell replaces"),
        ("$HOME/x", "variable that nothing replaces"),
        ("data/${ZONE}/x", "variable that nothing replaces"),
        ("$(pwd)/x", "variable that nothing replaces"),
        ("s3://lake/$ENV", "variable that nothing replaces"),
        ("%USERPROFILE%/x", "variable that nothing replaces"),
        ("{env}/x", "variable that nothing replaces; give its value (or './{env}/x' for a folder of that name)"),
        ("data/x-{{ env }}", "variable that nothing replaces"),
        ("${env}/x", "variable that nothing replaces"),
        ("<folder>/x", "variable that nothing replaces"),
        ("s3://lake/{env}", "variable that nothing replaces; give its value"),
        ("s3//lake/p", "did you mean 's3://lake/p'? (or './s3//lake/p' for a folder of that name)"),
        ("s3;//lake/p", "did you mean 's3://lake/p'?"),
        ("s3;lake", "did you mean 's3://lake'?"),
        ("S3a//lake", "did you mean 's3://lake'?"),
        ("s3//", "did you mean 's3://bucket/prefix'?"),
        ("file//x/y", "did you mean '/x/y' or './x/y'?"),
        ("gs//lake", "the scheme 'gs'"),
        ("https;//lake/p", "the scheme 'https'"),
        ("host:/x", "names a folder of another machine; mount it here and give its path (or './host:/x' for"),
        ("nas.local:/export/x", "a folder of another machine"),
        ("me@host:x", "a folder of another machine"),
        ("minio:9000/lake/p", "did you mean 's3://lake/p'? (A store other than AWS is named by AWS_ENDPOINT_URL.)"),
        ("lake.s3.amazonaws.com", "did you mean 's3://lake'?"),
        ("lake.S3.Amazonaws.com/p", "did you mean 's3://lake/p'?"),
        ("lake.s3.eu-west-1.amazonaws.com/x", "did you mean 's3://lake/x'?"),
        ("s3.amazonaws.com", "did you mean 's3://bucket/prefix'?"),
        ("https://lake.s3.eu-west-1.amazonaws.com", "did you mean 's3://lake'?"),
        ("storage.googleapis.com/lake/p", "did you mean 's3://lake/p'?"),
        ("lake.fra1.digitaloceanspaces.com/p", "AWS_ENDPOINT_URL"),
        ("s3:/lake/p", "did you mean 's3://lake/p'?"),
        ("s3:lake", "did you mean 's3://lake'?"),
        ("s3:", "did you mean 's3://bucket/prefix'?"),
        ("S3://lake", "did you mean 's3://lake'?"),
        ("s3a://lake/p", "did you mean 's3://lake/p'?"),
        ("s3n:lake", "did you mean 's3://lake'?"),
        ("s3://", "has no bucket name; did you mean 's3://bucket/prefix'?"),
        ("s3:///lake/p", "did you mean 's3://lake/p'?"),
        ("s3://lake//p", "did you mean 's3://lake/p'?"),
        ("s3://lake/../p", "did you mean 's3://lake/p'?"),
        ("s3://lake/a/./b", "did you mean 's3://lake/a/b'?"),
        ("s3://localhost:9000/lake", "did you mean 's3://lake'? (The address is set as AWS_ENDPOINT_URL.)"),
        ("s3://10.0.0.7/lake", "did you mean 's3://lake'?"),
        ("s3://key:hush@lake", "AWS_SECRET_ACCESS_KEY"),
        ("s3://lake.s3.eu-west-1.amazonaws.com/p", "did you mean 's3://lake/p'?"),
        ("s3://la", "not the name of a bucket"),
        ("s3://my lake", "not the name of a bucket"),
        ("s3://lake-", "not the name of a bucket"),
        ("s3://la..ke", "not the name of a bucket"),
        ("s3://lake?versioning", "not the name of a bucket"),
        ("file://rel/x", "did you mean '/rel/x' or './rel/x'?"),
        ("file:x", "did you mean '/x' or './x'?"),
        ("file:/x", "did you mean '/x' or './x'?"),
        ("FILE:///x", "did you mean '/x' or './x'?"),
        ("file://localhost/x", "did you mean 'file:///x'?"),
        ("file:///a%20b", "give the plain path"),
        (
            "http://minio:9000/lake/p",
            "did you mean 's3://lake/p'? (A store other than AWS is named by AWS_ENDPOINT_URL.)",
        ),
        ("https://lake.s3.eu-west-1.amazonaws.com/p", "did you mean 's3://lake/p'?"),
        ("https://s3.eu-west-1.amazonaws.com/lake/p/", "did you mean 's3://lake/p'?"),
        ("lake.s3.amazonaws.com/p", "did you mean 's3://lake/p'?"),
        ("gs://lake", "the scheme 'gs'; only s3://bucket/prefix and local folders are supported"),
        ("GS:lake", "the scheme 'gs'"),
        ("az://c/x", "the scheme 'az'"),
        ("abfss://c@account.dfs.core.windows.net/x", "the scheme 'abfss'"),
        ("hdfs://namenode/x", "the scheme 'hdfs'"),
        ("other://x", "the scheme 'other'"),
        ("C:\\data\\x", "a path of Windows"),
        ("c:/data", "a path of Windows"),
        ("D:", "a path of Windows"),
        ("\\\\server\\share", "did you mean '//server/share'?"),
        ("data\\x", "did you mean 'data/x'?"),
        ("arn:aws:s3:::lake/p", "did you mean 's3://lake/p'?"),
    ] {
        let message = refusal(text);
        assert!(message.contains(meant), "{text:?}: {message:?} does not say {meant:?}");
        assert!(!message.contains(char::is_control), "{message:?}");
    }
}

#[test]
fn a_prefix_leaves_room_for_the_names_below_it() {
    assert!(Location::parse(&format!("s3://lake/{}", "p".repeat(MAX_PREFIX_BYTES))).is_ok());
    assert!(refusal(&format!("s3://lake/{}", "p".repeat(MAX_PREFIX_BYTES + 1))).contains("at most 512"));
}

#[test]
fn a_folder_is_on_local_disk() {
    assert_eq!(Location::parse_folder("a/b"), Ok("a/b".into()));
    assert_eq!(Location::parse_folder("file:///a"), Ok("/a".into()));
    let message = Location::parse_folder("s3://lake/p").map_err(|error| error.to_string());
    assert!(message.is_err_and(|message| message.contains("must be a folder on local disk")));
}

#[test]
fn names_are_joined_in_both_kinds() -> Result<(), LocationError> {
    for (location, joined) in
        [("s3://lake", "s3://lake/pending"), ("s3://lake/p/", "s3://lake/p/pending"), ("x/", "x/pending")]
    {
        assert_eq!(Location::parse(location)?.join("pending").to_string(), joined);
    }
    Ok(())
}

#[test]
fn a_drive_has_a_letter() -> Result<(), LocationError> {
    assert_eq!(Location::parse("file:///:")?.to_string(), "/:");
    assert_eq!(Location::parse("/:")?.to_string(), "/:");
    assert!(Location::parse("c:").is_err_and(|error| error.to_string().contains("Windows")));
    Ok(())
}

proptest! {
    #[test]
    fn any_text_is_a_location_or_refused_and_what_is_printed_is_read_again(text in "(s3|S3|file|gs|[a-z~$.C]{0,3})?:?/{0,3}[a-zA-Z0-9._/~ \\\\$%@:-]{0,12}") {
        if let Ok(location) = Location::parse(&text) {
            prop_assert_eq!(Location::parse(&location.to_string()), Ok(location));
        }
    }

    #[test]
    fn no_folder_is_made_of_what_looks_like_a_url(scheme in "[a-z][a-z0-9+.-]{1,8}", rest in "[a-z0-9/._-]{0,12}") {
        let parsed = Location::parse(&format!("{scheme}://{rest}"));
        let is_ours = scheme == "s3" || scheme == "file";
        prop_assert!(is_ours || parsed.is_err());
    }

    #[test]
    fn nothing_that_is_refused_panics(text in any::<String>()) {
        let _ = Location::parse(&text);
    }
}
