//! The form of a setting, and the macro that makes structs, defaults and the table from one list.

use super::kind::Wrong;
use super::settings::Config;

/// One row of the table.
pub struct Setting {
    /// `section.key`, or a bare key; the unit comes last.
    pub name: &'static str,
    /// What it is for and what more or less of it costs, a line each.
    pub doc: &'static [&'static str],
    /// What may be written: a range with its unit, or the words.
    pub allowed: fn() -> String,
    /// For a default that cannot be written down: what it is, and an example of what could be written instead.
    pub unwritten: fn() -> Option<Unwritten>,
    pub(super) set: fn(&mut Config, &str) -> Result<(), Wrong>,
    pub(super) show: fn(&Config) -> serde_json::Value,
}

/// A default that is no value of the setting itself, such as "a private child".
pub struct Unwritten {
    pub meaning: &'static str,
    pub example: &'static str,
}

impl Setting {
    pub fn find(name: &str) -> Option<&'static Setting> {
        super::SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// The part before the dot; settings without one stand at the top of the file.
    pub fn section(&self) -> Option<&'static str> {
        self.name.split_once('.').map(|(section, _)| section)
    }

    /// The part after the dot.
    pub fn key(&self) -> &'static str {
        self.name.split_once('.').map_or(self.name, |(_, key)| key)
    }

    /// Without the dashes: `redis-url`.
    pub fn flag(&self) -> String {
        self.name.replace(['.', '_'], "-")
    }

    /// `RUSHLINE_REDIS_URL`.
    pub fn variable(&self) -> String {
        format!("RUSHLINE_{}", self.name.replace('.', "_").to_uppercase())
    }

    /// The value in `config`, passwords masked; `null` when nothing is set and there is no default to show.
    pub fn value(&self, config: &Config) -> serde_json::Value {
        (self.show)(config)
    }

    /// The value as a person reads it.
    pub fn text(&self, config: &Config) -> String {
        match (self.value(config), (self.unwritten)()) {
            (serde_json::Value::Null, Some(unwritten)) => format!("({})", unwritten.meaning),
            (serde_json::Value::String(text), _) => text,
            (other, _) => other.to_string(),
        }
    }
}

/// Makes `Config`, its parts with their `Default`, and `SETTINGS`, from one list. See `settings.rs`.
macro_rules! settings {
    (
        top { $( $(#[doc = $top_doc:literal])+ $top:ident: $top_type:ty, $top_name:literal, $top_kind:expr; )+ }
        $( $(#[doc = $part_doc:literal])+ $part:ident: $Part:ident {
            $( $(#[doc = $doc:literal])+ $field:ident: $type:ty, $name:literal, $kind:expr; )+
        } )+
    ) => {
        /// What the program runs with. `Config::default()` runs without a file, a flag or a variable.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Config {
            $( $(#[doc = $top_doc])+ #[doc = concat!("\n\nSetting `", $top_name, "`.")] pub $top: $top_type, )+
            $( $(#[doc = $part_doc])+ pub $part: $Part, )+
        }

        impl Default for Config {
            fn default() -> Self {
                Self { $( $top: Kind::default(&$top_kind), )+ $( $part: $Part::default(), )+ }
            }
        }

        $(
            $(#[doc = $part_doc])+
            #[derive(Debug, Clone, PartialEq)]
            pub struct $Part {
                $( $(#[doc = $doc])+ #[doc = concat!("\n\nSetting `", $name, "`.")] pub $field: $type, )+
            }

            impl Default for $Part {
                fn default() -> Self {
                    Self { $( $field: Kind::default(&$kind), )+ }
                }
            }
        )+

        /// Every setting, in the order of the file.
        pub static SETTINGS: &[Setting] = &[
            $( settings!(@row [$($top_doc),+] $top_type, $top_name, $top_kind, $top), )+
            $( $( settings!(@row [$($doc),+] $type, $name, $kind, $part.$field), )+ )+
        ];

        /// The sections of the file and what each is about.
        pub static SECTIONS: &[(&str, &str)] = &[ $( (stringify!($part), concat!($($part_doc),+)), )+ ];
    };
    (@row [$($doc:literal),+] $type:ty, $name:literal, $kind:expr, $($path:ident).+) => {
        Setting {
            name: $name,
            doc: &[$($doc),+],
            allowed: || Kind::<$type>::allowed(&$kind),
            unwritten: || Kind::<$type>::unwritten(&$kind),
            set: |config, text| { config.$($path).+ = $kind.read(text)?; Ok(()) },
            show: |config| Kind::<$type>::show(&$kind, &config.$($path).+),
        }
    };
}
pub(super) use settings;
