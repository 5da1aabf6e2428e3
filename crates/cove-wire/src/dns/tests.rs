//! Messages as others send them, and as nobody should.

use super::*;
use proptest::prelude::*;

fn question(name: &str, kind: u16, edns: Option<u16>) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, RD, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend(IN.to_be_bytes());
    if let Some(payload) = edns {
        message.extend([0, 0, 41]);
        message.extend(payload.to_be_bytes());
        message.extend([0, 0, 0, 0, 0, 0]);
    }
    message
}

#[test]
fn a_question_is_read_whatever_its_spelling() {
    let message = question("Host.Docker.INTERNAL", A, Some(1232));
    let query = Query::parse(&message).unwrap();
    assert_eq!(query.name, "host.docker.internal");
    assert!(query.asks_for_address());
    let other = question("host.docker.internal", A, Some(4096));
    assert_eq!(query.key(), Query::parse(&other).unwrap().key());
    let plain = question("host.docker.internal", A, None);
    assert_ne!(query.key(), Query::parse(&plain).unwrap().key());
}

/// What a container writes beside its question came to the name server, and the answer to that was everybody's.
#[test]
fn only_what_is_asked_is_asked_of_others() {
    let mut subnet = question("db.test", A, None);
    subnet[3] = CD;
    subnet[11] = 2;
    // A record of an address, and EDNS that wants signatures and has a subnet to answer for.
    subnet.extend([0, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 66]);
    subnet.extend([0, 0, 41, 16, 0, 0, 0, 0x80, 0, 0, 11]);
    subnet.extend([0, 8, 0, 7, 0, 1, 24, 0, 192, 0, 2]);
    let query = Query::parse(&subnet).unwrap();
    let asked = query.anew(7);
    let mut expected = question("db.test", A, Some(ASKED_PAYLOAD));
    let signed = expected.len() - 4;
    (expected[0], expected[1], expected[3], expected[signed]) = (0, 7, CD, 0x80);
    assert_eq!(asked, expected);
    assert_eq!(Query::parse(&asked).unwrap().key(), query.key());
    let plain = question("DB.test", A, None);
    let plain = Query::parse(&plain).unwrap();
    assert_eq!(plain.anew(plain.id()), question("DB.test", A, None));
    assert_ne!(plain.key(), query.key());
}

/// HTTPS is 65, and 97 would be its small letter.
#[test]
fn types_are_not_letters() {
    let (https, other) = (question("db.test", 65, None), question("db.test", 97, None));
    let (https, other) = (Query::parse(&https).unwrap(), Query::parse(&other).unwrap());
    assert_ne!(https.key(), other.key());
    assert!(!https.is_answered_by(&other.failure(Code::NoError)));
    assert!(https.is_answered_by(&https.failure(Code::NoError)));
}

#[test]
fn an_answer_has_the_addresses_of_the_family_asked_for_and_their_lifetime() {
    let addresses: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    for (kind, length) in [(A, 4), (AAAA, 16)] {
        let message = question("db.test", kind, None);
        let query = Query::parse(&message).unwrap();
        let mut answer = query.answer(&addresses, 60);
        assert!(query.is_answered_by(&answer));
        assert_eq!(answer.len(), message.len() + 12 + length);
        assert_eq!(lifetime(&answer), Some(60));
        age(&mut answer, 20);
        assert_eq!(lifetime(&answer), Some(40));
        age(&mut answer, 100);
        assert_eq!(lifetime(&answer), Some(0));
    }
}

#[test]
fn what_is_asked_for_is_found_in_the_answer() {
    let all: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    for (kind, one) in [(A, all[0]), (AAAA, all[1])] {
        let message = super::question(7, "db.test.", kind).unwrap();
        assert_eq!(message[2..], question("db.test", kind, None)[2..]);
        let query = Query::parse(&message).unwrap();
        assert_eq!(addresses(&query.answer(&all, 60)), [one]);
        assert!(addresses(&query.failure(Code::NoSuchName)).is_empty());
    }
    for name in ["", "a..b", &"x".repeat(64), &"abc.".repeat(80)] {
        assert_eq!(super::question(7, name, A), None, "{name}");
    }
}

#[test]
fn a_name_that_is_anothers_alias_is_answered_with_that_ones_addresses() {
    let all: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    let message = question("DB.prod", A, None);
    let query = Query::parse(&message).unwrap();
    let answer = query.answer_alias("db.prod.corp.test", &all, 60).unwrap();
    assert!(query.is_answered_by(&answer));
    assert_eq!(counts(&answer), [1, 2, 0, 0]);
    assert_eq!((addresses(&answer), lifetime(&answer)), (vec![all[0]], Some(60)));
    // The address has the name that stands in the record before it.
    let full = b"\x02db\x04prod\x04corp\x04test\0";
    let at = answer
        .windows(full.len())
        .position(|window| window == full)
        .unwrap();
    let pointer = number(&answer, at + full.len()).unwrap();
    assert_eq!(usize::from(pointer & !POINTER), at);
    let without = query.answer_alias("db.prod.corp.test", &[], 60).unwrap();
    assert_eq!(counts(&without), [1, 1, 0, 0]);
    assert_eq!(query.answer_alias("a..b", &all, 60), None);
}

#[test]
fn addresses_of_name_servers_are_none_of_the_name_asked_for() {
    let message = question("db.test", A, None);
    let query = Query::parse(&message).unwrap();
    let mut answer = query.answer(&[IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 53])], 60);
    // The second belongs to the additional section.
    answer[7] = 1;
    answer[11] = 1;
    assert_eq!(addresses(&answer), [IpAddr::from([192, 0, 2, 1])]);
}

#[test]
fn an_address_whose_name_is_asked_for_is_read_and_its_name_told() {
    let asked = |name: &str| {
        let message = question(name, PTR, None);
        Query::parse(&message).unwrap().asks_for_name()
    };
    let address = |text: &str| text.parse::<IpAddr>().ok();
    assert_eq!(asked("7.2.0.192.IN-ADDR.arpa"), address("192.0.2.7"));
    let nibbles = "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.B.d.0.1.0.0.2.ip6.arpa";
    assert_eq!(asked(nibbles), address("2001:db8::5"));
    for other in [
        "in-addr.arpa",
        "2.0.192.in-addr.arpa",
        "1.7.2.0.192.in-addr.arpa",
        "256.2.0.192.in-addr.arpa",
        "ip6.arpa",
        &nibbles["5.".len()..],
        &format!("0.{nibbles}"),
        &nibbles.replace("5.", "g."),
        &nibbles.replace("5.", "05."),
        "7.2.0.192.example",
    ] {
        assert_eq!(asked(other), None, "{other}");
    }
    let message = question("7.2.0.192.in-addr.arpa", A, None);
    let query = Query::parse(&message).unwrap();
    assert_eq!(query.asks_for_name(), None, "it is asked for an address");

    let message = question("7.2.0.192.in-addr.arpa", PTR, None);
    let query = Query::parse(&message).unwrap();
    let answer = query.answer_name("db.test", 60).unwrap();
    assert!(query.is_answered_by(&answer) && answer.ends_with(b"\x02db\x04test\0"));
    assert_eq!(lifetime(&answer), Some(60));
    for name in ["", "a..b", &"x".repeat(64), &"abc.".repeat(80)] {
        assert_eq!(query.answer_name(name, 60), None, "{name}");
    }
}

#[test]
fn a_name_without_the_record_holds_as_long_as_its_zone_says() {
    let message = question("none.test", A, None);
    let query = Query::parse(&message).unwrap();
    let mut answer = query.failure(Code::NoSuchName);
    assert_eq!(lifetime(&answer), None, "nobody said for how long");
    answer[9] = 1;
    answer.extend([0xc0, 12, 0, 6, 0, 1, 0, 0, 1, 0, 0, 22, 0, 0]);
    answer.extend([0; 16]);
    answer.extend(30_u32.to_be_bytes());
    assert_eq!(lifetime(&answer), Some(30));
    assert!(is_no_such_name(&answer) && is_negative(&answer));
    let without = query.failure(Code::NoError);
    assert!(!is_no_such_name(&without) && is_negative(&without));
    assert!(!is_negative(&query.answer(&[IpAddr::from([192, 0, 2, 1])], 60)));
    assert!(!is_negative(&query.failure(Code::ServerFailure)));
    assert_eq!(lifetime(&query.failure(Code::ServerFailure)), None);
}

#[test]
fn an_alias_of_a_name_without_the_record_is_the_lack_of_it() {
    let addresses = [IpAddr::from([192, 0, 2, 1])];
    let asked = |kind| question("db.test", kind, None);
    let (four, six) = (asked(A), asked(AAAA));
    let four = Query::parse(&four).unwrap();
    assert!(!is_negative(
        &four.answer_alias("db.corp.test", &addresses, 60).unwrap()
    ));
    let six = Query::parse(&six).unwrap();
    let mut alias = six.answer_alias("db.corp.test", &addresses, 60).unwrap();
    assert!(is_negative(&alias));
    // Whoever asks for aliases has found one, and so has whoever asks for everything.
    let kind = six.message.len() - 4;
    for wanted in [CNAME, ANY] {
        alias[kind..kind + 2].copy_from_slice(&wanted.to_be_bytes());
        assert!(!is_negative(&alias), "{wanted}");
    }
}

#[test]
fn an_answer_too_long_for_the_asker_is_asked_for_again_over_tcp() {
    let addresses = [IpAddr::from([192, 0, 2, 1]); 32];
    let small = question("many.test", A, None);
    let query = Query::parse(&small).unwrap();
    let cut = query.fit_datagram(query.answer(&addresses, 1));
    assert!(is_truncated(&cut) && cut.len() <= 512);
    let large = question("many.test", A, Some(4096));
    let query = Query::parse(&large).unwrap();
    assert!(!is_truncated(&query.fit_datagram(query.answer(&addresses, 1))));
}

#[test]
fn what_is_no_request_is_not_answered_and_what_is_odd_is_refused() {
    let mut message = question("a.test", A, None);
    assert_eq!(Query::parse(&message[..11]), Err(Malformed::NoRequest));
    assert_eq!(
        Query::parse(&message[..20]),
        Err(Malformed::Bad(Code::FormatError))
    );
    message[5] = 2;
    assert_eq!(Query::parse(&message), Err(Malformed::Bad(Code::FormatError)));
    message[5] = 1;
    message[2] |= 0x28;
    assert_eq!(Query::parse(&message), Err(Malformed::Bad(Code::NotImplemented)));
    message[2] = QR;
    assert_eq!(Query::parse(&message), Err(Malformed::NoRequest));
}

proptest! {
    #[test]
    fn no_message_makes_the_parsers_panic(message in proptest::collection::vec(any::<u8>(), 0..200)) {
        let asked = question("a.test", A, None);
        let asked = Query::parse(&asked).unwrap();
        if let Ok(query) = Query::parse(&message) {
            prop_assert!(Query::parse(query.message).is_ok());
            prop_assert!(query.is_answered_by(&query.failure(Code::ServerFailure)));
            let _ = query.asks_for_name();
        }
        let mut aged = message.clone();
        age(&mut aged, 7);
        asked.adopt(&mut aged);
        prop_assert!(is_conclusive(&message) || !is_negative(&message));
        let _ = (lifetime(&message), asked.is_answered_by(&message), refuse(&message, Code::FormatError));
    }

    #[test]
    fn no_tail_of_a_question_makes_the_parsers_panic(tail in proptest::collection::vec(any::<u8>(), 0..64), counts in any::<[u8; 4]>()) {
        let mut message = question("a.test", A, None);
        message[7] = counts[0];
        message[9] = counts[1];
        message[11] = counts[2];
        message[2] = counts[3];
        message.extend(tail);
        let _ = (Query::parse(&message).is_ok(), lifetime(&message), addresses(&message));
        age(&mut message, 1);
    }
}
