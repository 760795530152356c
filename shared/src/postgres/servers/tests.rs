use super::*;

fn places(url: &str) -> Vec<String> {
    parse(url, None)
        .unwrap()
        .iter()
        .map(Server::place)
        .collect()
}

#[test]
fn a_url_names_one_server_or_several() {
    assert_eq!(
        places("postgres://u:p%40@one/db?sslmode=disable"),
        ["one:5432"]
    );
    assert_eq!(
        places("postgres://u:p@one:5433,two,[::1]:5434/db?target_session_attrs=read-write"),
        ["one:5433", "two:5432", "[::1]:5434"]
    );
    assert_eq!(
        places("postgres:///db?host=/run/a,/run/b&user=postgres"),
        ["/run/a:5432", "/run/b:5432"]
    );
    assert_eq!(
        places("postgres:///db?host=one,two&port=5433,5434"),
        ["one:5433", "two:5434"]
    );
    assert_eq!(
        places("postgres://one,two/db?port=6432"),
        ["one:6432", "two:6432"]
    );
    let servers = parse("postgres://u:p%40@one,two/db", None).unwrap();
    for server in servers {
        assert_eq!(server.options.get_username(), "u");
        assert_eq!(server.options.get_database(), Some("db"));
    }
}

#[test]
fn a_password_is_given_apart_as_it_is() {
    use sqlx::ConnectOptions;

    let servers = parse("postgres://u:other@one,two/db", Some("p@ss/word")).unwrap();
    for server in servers {
        let url = server.options.to_url_lossy();
        assert_eq!(url.password(), Some("p%40ss%2Fword"));
    }
}

#[test]
fn what_can_not_be_meant_is_refused() {
    for (url, why) in [
        ("mysql://one/db", "neither postgres://"),
        ("one", "neither postgres://"),
        ("postgres:///db?host=a,b,c&port=1,2", "has 2"),
        (
            "postgres://one/db?target_session_attrs=standby",
            "every program writes",
        ),
    ] {
        let error = parse(url, None).unwrap_err().to_string();
        assert!(error.contains(why), "{url}: {error}");
    }
}
