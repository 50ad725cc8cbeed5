//! Masks credentials in addresses. No message, log line or output may show them.

use std::borrow::Cow;

/// The replacement of credentials.
pub const MASK: &str = "********";

/// Masks credentials in addresses: `user:password@` of an authority, and the query, which may be signed.
#[must_use]
pub fn without_credentials(text: &str) -> Cow<'_, str> {
    if !text.contains("://") && !text.contains('@') {
        return Cow::Borrowed(text);
    }
    let mut masked = String::with_capacity(text.len());
    // No other character separates words reliably: a password may contain commas and quotes.
    for word in text.split_inclusive(char::is_whitespace) {
        mask_word(word, &mut masked);
    }
    Cow::Owned(masked)
}

fn mask_word(word: &str, masked: &mut String) {
    let (scheme, rest) = word.split_once("://").map_or((None, word), |(scheme, rest)| (Some(scheme), rest));
    if let Some(scheme) = scheme {
        masked.push_str(scheme);
        masked.push_str("://");
    }
    let rest = match rest.rsplit_once('@') {
        Some((before, after)) if is_userinfo(before, scheme.is_some()) => {
            masked.push_str(MASK);
            masked.push('@');
            after
        }
        _ => rest,
    };
    match rest.split_once('?') {
        Some((before, query)) if scheme.is_some() && query.contains('=') => {
            masked.push_str(before);
            masked.push('?');
            masked.push_str(MASK);
        }
        _ => masked.push_str(rest),
    }
}

/// Whether the text before an `@` is a user name with a password. With a scheme it may contain a `/`, provided the part
/// before that is not a host: passwords may contain unescaped slashes.
fn is_userinfo(before: &str, has_scheme: bool) -> bool {
    let (authority, path) = before.split_once('/').map_or((before, None), |(authority, path)| (authority, Some(path)));
    let port = authority.split_once(':').map(|(_, port)| port);
    let has_password = port.is_some_and(|port| path.is_none() || port.parse::<u16>().is_err());
    has_password || (has_scheme && path.is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn credentials_in_addresses_are_masked_and_nothing_else() {
        for (text, masked) in [
            ("https://you:hush@host:8443/token", "https://********@host:8443/token"),
            ("https://you:hu/sh@host/token", "https://********@host/token"),
            ("https://you:hu@sh@host", "https://********@host"),
            ("https://you:hu,'sh@host", "https://********@host"),
            ("https://hush@host/x", "https://********@host/x"),
            ("you:hush@host:9092,b:9092", "********@host:9092,b:9092"),
            ("a:9092,SASL_SSL://you:hush@host:9092", "a:9092,SASL_SSL://********@host:9092"),
            ("a:9092,you:hush@host:9092", "********@host:9092"),
            ("'s3://key:hush@lake/x' is wrong", "'s3://********@lake/x' is wrong"),
            ("https://host/q?X-Amz-Signature=hush", "https://host/q?********"),
            ("https://sqs.eu-west-1.amazonaws.com/1/q", "https://sqs.eu-west-1.amazonaws.com/1/q"),
            ("s3://lake/a@b", "s3://lake/a@b"),
            ("http://host:9000/a@b", "http://host:9000/a@b"),
            ("template:{/source}", "template:{/source}"),
            ("/data/you@work", "/data/you@work"),
            ("you@host", "you@host"),
            ("30s", "30s"),
        ] {
            assert_eq!(without_credentials(text), masked);
        }
    }

    proptest! {
        #[test]
        fn no_password_of_a_url_is_shown(
            scheme in "[a-z][a-z0-9]{0,5}",
            user in "[a-zA-Z0-9._-]{0,6}",
            password in "[A-Z][A-Z0-9/:@!$&()*+,;'=.?#-]{2,12}",
            host in "[a-z0-9.-]{1,10}",
        ) {
            let text = format!("'{scheme}://{user}:{password}@{host}/x' and more");
            let masked = without_credentials(&text).into_owned();
            prop_assert!(!masked.contains(&password), "{}", masked);
            let after = format!("@{host}/x' and more");
            prop_assert!(masked.ends_with(&after), "{}", masked);
        }
    }
}
