use super::*;

#[test]
fn columns_come_in_any_order_and_keys_are_made_where_there_is_none() {
    let content = "\u{feff}userName,idempotencyKey, showId ,numberOfSeats\n\
                   \"Doe, Jane\",k-1,7,2\r\n\nBob,,7, 1 \n\"two\nlines\",,8,3\nEve,k-2,8,1\n";
    let rows = parse(content.as_bytes()).unwrap();
    let of_file = |row: &Row| {
        let Row {
            line,
            show_id,
            number_of_seats,
            ..
        } = *row;
        (line, show_id, row.user_name.clone(), number_of_seats)
    };
    let found: Vec<_> = rows.iter().map(of_file).collect();
    assert_eq!(
        found,
        [
            (2, 7, "Doe, Jane".to_owned(), 2),
            (4, 7, "Bob".to_owned(), 1),
            (5, 8, "two\nlines".to_owned(), 3),
            (7, 8, "Eve".to_owned(), 1),
        ]
    );
    assert_eq!(rows[0].key, "k-1");
    assert!(rows[0].has_own_key && !rows[1].has_own_key);
    assert!(rows[1].key.starts_with("import-") && rows[1].key.ends_with("-4"));
    assert_eq!(rows[1].key.len(), "import-".len() + 32 + "-4".len());

    let again = parse(content.as_bytes()).unwrap();
    assert_eq!(again[1].key, rows[1].key, "the same file has the same keys");
    let edited = parse(content.replace("Eve", "Eva").as_bytes()).unwrap();
    assert_ne!(edited[1].key, rows[1].key, "another file has others");
}

#[test]
fn a_line_has_its_number_whatever_ends_the_lines() {
    let lines = [
        "showId,userName,numberOfSeats",
        "7,a,1",
        "",
        "7,b,1",
        "",
        "",
        "7,c,1",
        "7,d,x",
    ];
    for end in ["\n", "\r\n", "\r"] {
        let rows = parse(lines[..7].join(end).as_bytes()).unwrap();
        let numbers: Vec<u64> = rows.iter().map(|row| row.line).collect();
        assert_eq!(numbers, [2, 4, 7], "{end:?}");
        let errors = parse(lines.join(end).as_bytes()).unwrap_err();
        assert!(errors[0].starts_with("line 8: "), "{errors:?}");
    }
}

#[test]
fn a_header_names_the_columns_and_no_others() {
    for header in [
        "",
        "showId,userName\n7,a\n",
        "showId,userName,numberOfSeats,seat\n7,a,1,1\n",
        "showId,userName,numberOfSeats,showId\n7,a,1,7\n",
        "showId;userName;numberOfSeats\n7;a;1\n",
        "7,a,1\n",
    ] {
        let errors = parse(header.as_bytes()).unwrap_err();
        assert_eq!(errors.len(), 1, "{header}");
        assert!(
            errors[0].starts_with("line 1: the columns must be"),
            "{errors:?}"
        );
    }
    let none = parse(b"showId,userName,numberOfSeats\n").unwrap();
    assert!(none.is_empty());
}

#[test]
fn all_invalid_lines_are_found() {
    let long = "x".repeat(201);
    let content = format!(
        "showId,userName,numberOfSeats,idempotencyKey\n\
         7,a,1,k\n\
         x,,0,\u{e9}\n\
         7,{long},1001,\n\
         9223372036854775808,b,2.5,\n\
         7,c,1\n\
         7,d,1,k\n\
         7,e,1,{long}{long}\n"
    );
    let content = [content.as_bytes(), b"7,\xff,1,\n"].concat();
    let errors = parse(&content).unwrap_err();
    let expected = [
        r#"line 3: showId must be an integer, not "x""#.to_owned(),
        r#"line 3: userName must have 1 to 200 characters, not """#.to_owned(),
        r#"line 3: numberOfSeats must be an integer from 1 to 1000, not "0""#.to_owned(),
        r#"line 3: idempotencyKey must have 1 to 255 visible ASCII characters, not "é""#.to_owned(),
        format!(
            "line 4: userName must have 1 to 200 characters, not {:?}…",
            &long[..40]
        ),
        r#"line 4: numberOfSeats must be an integer from 1 to 1000, not "1001""#.to_owned(),
        r#"line 5: showId must be an integer, not "9223372036854775808""#.to_owned(),
        r#"line 5: numberOfSeats must be an integer from 1 to 1000, not "2.5""#.to_owned(),
        "line 6: 3 values instead of 4".to_owned(),
        format!(
            "line 8: idempotencyKey must have 1 to 255 visible ASCII characters, not {:?}…",
            &long[..40]
        ),
        "line 9: not valid UTF-8".to_owned(),
        "line 7: idempotencyKey is that of line 2".to_owned(),
    ];
    assert_eq!(errors, expected);
}
