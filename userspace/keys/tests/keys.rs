// SPDX-License-Identifier: GPL-2.0-or-later

//! Keys wrapped and unwrapped, identities read as people write them.

#![allow(clippy::unwrap_used, missing_docs)]

use reelfs_keys::{Identities, KeyError, NewIdentity, Recipients, SecretString};

fn nobody() -> Result<SecretString, String> {
    panic!("no passphrase was needed")
}

fn identities(new: &NewIdentity) -> Identities {
    Identities::parse(&new.file("now", None).unwrap(), nobody).unwrap()
}

#[test]
fn each_recipient_opens_it_and_nobody_else() {
    let (one, two, other) = (NewIdentity::generate(), NewIdentity::generate(), NewIdentity::generate());
    let lock = Recipients::parse(&[one.recipient(), two.recipient()]).unwrap().lock().unwrap();
    assert_eq!(lock.wrapped.recipients, format!("{}\n{}\n", one.recipient(), two.recipient()));
    for new in [&one, &two] {
        let key = identities(new).unwrap(&lock.wrapped).unwrap().unwrap();
        assert_eq!(key.bytes(), lock.key.bytes());
        assert_eq!(key.fingerprint(), lock.wrapped.fingerprint);
    }
    assert!(identities(&other).unwrap(&lock.wrapped).unwrap().is_none());
    let mut several = identities(&other);
    several.extend(identities(&two));
    assert!(several.unwrap(&lock.wrapped).unwrap().is_some());
    // Each volume has a key of its own.
    let again = Recipients::parse(&[one.recipient()]).unwrap().lock().unwrap();
    assert_ne!(again.key.bytes(), lock.key.bytes());
}

#[test]
fn a_wrapped_key_that_was_altered_is_not_taken() {
    let new = NewIdentity::generate();
    let good = Recipients::parse(&[new.recipient()]).unwrap().lock().unwrap().wrapped;
    let identities = identities(&new);
    for at in 0..good.wrapped.len() {
        let mut bad = good.clone();
        bad.wrapped[at] ^= 1;
        assert!(!matches!(identities.unwrap(&bad), Ok(Some(_))), "byte {at}");
    }
    let mut bad = good.clone();
    bad.fingerprint[0] ^= 1;
    assert!(matches!(identities.unwrap(&bad), Err(KeyError::Wrapped(_))));
    for length in [0, 1, 100, good.wrapped.len() - 1] {
        let mut bad = good.clone();
        bad.wrapped.truncate(length);
        assert!(!matches!(identities.unwrap(&bad), Ok(Some(_))), "{length} bytes");
    }
}

#[test]
fn what_is_typed_from_paper_is_understood() {
    let new = NewIdentity::generate();
    let file = new.file("now", None).unwrap();
    let text = String::from_utf8(file.to_vec()).unwrap();
    let secret = text.lines().last().unwrap();
    assert!(secret.starts_with("AGE-SECRET-KEY-1"));
    let grouped: Vec<_> = secret.as_bytes().chunks(4).map(|group| std::str::from_utf8(group).unwrap()).collect();
    let typed = format!("  {}  # from the safe\n\n", grouped.join(" ").to_lowercase());
    assert_eq!(Identities::parse(typed.as_bytes(), nobody).unwrap().recipients(), [new.recipient()]);
    // A slip of the finger is noticed, wherever it is.
    for at in 16..secret.len() {
        let mut wrong = secret.as_bytes().to_vec();
        wrong[at] = if wrong[at] == b'Q' { b'P' } else { b'Q' };
        match Identities::parse(&wrong, nobody) {
            Err(KeyError::Identity { line: 1, .. }) => {}
            other => panic!("character {at}: {other:?}"),
        }
    }
    assert!(matches!(Identities::parse(b"# nothing\n", nobody), Err(KeyError::NoIdentity)));
}

#[test]
fn a_passphrase_protects_an_identity() {
    let new = NewIdentity::generate();
    let phrase = || SecretString::from("correct horse".to_owned());
    let file = new.file("now", Some(phrase())).unwrap();
    assert!(!file.windows(14).any(|part| part == b"AGE-SECRET-KEY"));
    assert_eq!(Identities::parse(&file, || Ok(phrase())).unwrap().recipients(), [new.recipient()]);
    let wrong = Identities::parse(&file, || Ok(SecretString::from("wrong".to_owned())));
    assert!(matches!(wrong, Err(KeyError::Passphrase(_))));
    assert!(matches!(Identities::parse(&file, || Err("no terminal".into())), Err(KeyError::Passphrase(_))));
}

#[test]
fn what_is_no_recipient_is_named() {
    let error = Recipients::parse(&["age1nonsense"]).unwrap_err();
    assert!(error.to_string().contains("age1nonsense"), "{error}");
    assert!(matches!(Recipients::parse::<&str>(&[]), Err(KeyError::NoRecipient)));
    // A secret in the place of a recipient would end on the server.
    let new = NewIdentity::generate();
    let text = String::from_utf8(new.file("now", None).unwrap().to_vec()).unwrap();
    let secret = text.lines().last().unwrap();
    let error = Recipients::parse(&[secret]).unwrap_err().to_string();
    assert!(!error.contains(&secret[..24]), "{error}");
}

#[test]
fn secrets_are_not_printed() {
    let new = NewIdentity::generate();
    let identities = identities(&new);
    let shown = format!("{identities:?}");
    assert!(shown.contains(&new.recipient()) && !shown.contains("SECRET"), "{shown}");
    let lock = Recipients::parse(&[new.recipient()]).unwrap().lock().unwrap();
    let shown = format!("{:?}", lock.key);
    let secret = u32::from_be_bytes(*lock.key.bytes().first_chunk().unwrap());
    assert!(!shown.contains(&format!("{secret:08x}")));
}
