//! Comparison of user names, for the limit of the seats of a user.

use unicode_normalization::UnicodeNormalization;
use unicode_security::confusable_detection::skeleton;

/// Returns a name in the form in which names are compared: two ways to write the same name have the
/// same form.
///
/// Names may differ in upper and lower case, in accents of Latin, Greek and Cyrillic letters, in forms
/// of a letter such as full-width ones, in spaces, punctuation and symbols, and in letters that look
/// alike in different scripts ([UTS 39](https://www.unicode.org/reports/tr39/)). A name that has
/// nothing else is compared as it is written.
///
/// It is not the identity of a person: whoever wants more seats can use another name.
pub(super) fn comparable(name: &str) -> String {
    let plain: String = name.nfkd().filter(|mark| !is_accent(*mark)).collect();
    // By way of upper case, so that `ß` is the same as `SS`.
    let folded = plain.to_uppercase().to_lowercase();
    let letters: String = skeleton(&folded)
        .filter(|character| character.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect();
    if letters.is_empty() {
        return name.to_owned();
    }
    letters
}

fn is_accent(character: char) -> bool {
    matches!(character, '\u{300}'..='\u{36f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_however_it_is_written() {
        for (name, others) in [
            (
                "Alice Smith",
                &[
                    "alice smith",
                    "ALICE  SMITH ",
                    "Alice-Smith",
                    "Alice.Smith",
                    "AliceSmith",
                    "Ａｌｉｃｅ　Ｓｍｉｔｈ",
                    "Álice Smith",
                    "\u{410}lice Smith",
                    "Alice Smith 🎭",
                    "Al\u{456}ce Smith",
                ][..],
            ),
            ("José", &["Jose", "Jose\u{301}", "JOSÉ"]),
            ("Weiß", &["WEISS", "weiss"]),
            ("Łódź", &["łódź", "ŁÓDŹ"]),
            ("Ångström", &["\u{212b}ngstrom"]),
            ("松本", &["松本 "]),
            ("🎭🎟", &[]),
        ] {
            for other in others {
                assert_eq!(comparable(other), comparable(name), "{other:?}, {name:?}");
            }
        }
    }

    #[test]
    fn other_names_are_not_the_same() {
        let names = [
            "Alice",
            "Alicia",
            "Alice 2",
            "Bob",
            "松本",
            "松木",
            "अनिल",
            "अनिला",
            "🎭",
            "🎟",
            "李",
            "Li",
        ];
        for (position, name) in names.iter().enumerate() {
            assert!(!comparable(name).is_empty());
            for other in &names[..position] {
                assert_ne!(comparable(name), comparable(other), "{name}, {other}");
            }
        }
    }
}
