use super::*;

#[test]
fn a_token_is_read_as_it_was_written() {
    let token = Token {
        key_id: 12,
        secret: Secret([0xab; 32]),
    };
    let text = token.reveal();
    assert_eq!(text, format!("tkt_12_{}", "ab".repeat(32)));
    let read = Token::parse(&text).unwrap();
    assert_eq!(read.key_id, 12);
    assert!(read.is(&token.secret.hash()));
    assert!(!read.is(&Secret([0xac; 32]).hash()));
    assert!(!read.is(&[]));
}

#[test]
fn what_is_no_token_is_none() {
    let secret = "ab".repeat(32);
    for text in ["", "tkt_", "tkt_1", "tkt_1_", "tkt_1_ab", "tkt_x_ab"] {
        assert!(Token::parse(text).is_none(), "{text}");
    }
    for text in [
        format!("tkt_{secret}"),
        format!("1_{secret}"),
        format!("tkt_1_{secret}00"),
    ] {
        assert!(Token::parse(&text).is_none(), "{text}");
    }
}

#[test]
fn each_scope_is_read_as_it_is_written() {
    for scope in Scope::value_variants() {
        assert_eq!(Scope::from_str(&scope.to_string(), false), Ok(*scope));
    }
}
