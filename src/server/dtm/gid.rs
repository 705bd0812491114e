//! New gids, in the form of dtm's: 22 characters, a random UUID in base 57.

/// Without those that look like one another.
const ALPHABET: &[u8; 57] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const LENGTH: usize = 22;

pub fn new() -> String {
    encode(uuid::Uuid::new_v4().as_u128())
}

fn encode(mut number: u128) -> String {
    let mut text = [ALPHABET[0]; LENGTH];
    for place in text.iter_mut().rev() {
        *place = ALPHABET[(number % 57) as usize];
        number /= 57;
    }
    text.iter().map(|byte| char::from(*byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gid_has_22_characters_of_the_alphabet() {
        assert_eq!(encode(0), "2".repeat(22));
        assert_eq!(encode(58), format!("{}33", "2".repeat(20)));
        let largest = encode(u128::MAX);
        assert!(largest.len() == 22 && largest.bytes().all(|byte| ALPHABET.contains(&byte)));
        assert_ne!(new(), new());
    }
}
