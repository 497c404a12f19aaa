//! Tests of the configuration: layers, origins, errors with their place, combinations.

use super::*;

fn file(text: &str) -> Layers {
    Layers { file: Some((PathBuf::from("antecede.toml"), text.to_owned())), ..Layers::default() }
}

fn flags(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(path, value)| ((*path).to_owned(), (*value).to_owned())).collect()
}

/// Two datacenters of one node, whose data is in memory.
pub(crate) const TWO: &str = "\
[deployment]
id = \"5b0c6e0e8f5c4b7a9d3e2f1a0b9c8d7e\"

[[datacenter]]
id = 1
name = \"east\"
node = [{ number = 1, client = \"127.0.0.1:6379\", peer = \"127.0.0.1:16379\" }]

[[datacenter]]
id = 2
name = \"west\"
node = [{ number = 1, client = \"127.0.0.1:7379\", peer = \"127.0.0.1:17379\" }]

[node]
datacenter = \"west\"
number = 1

[storage]
memory = true
";

#[test]
fn every_default_is_accepted_by_its_own_reader() {
    let defaults = resolve::defaults();
    let with_default = keys::KEYS.iter().filter(|key| key.default.is_some()).count();
    assert_eq!(defaults.len(), with_default);
    Config::load(&Layers::default()).unwrap();
}

#[test]
fn the_example_is_a_configuration() {
    let config = Config::load(&Layers {
        flags: flags(&[
            ("storage.memory", "true"),
            ("deployment.id", "5b0c6e0e8f5c4b7a9d3e2f1a0b9c8d7e"),
        ]),
        ..file(&keys::example())
    })
    .unwrap();
    assert_eq!(config.datacenters[0].nodes[0].admin.as_deref(), Some("127.0.0.1:26379"));
}

#[test]
fn a_later_layer_overrides_an_earlier_one_and_origins_are_told() {
    let layers = Layers {
        environment: vec![
            ("ANTECEDE_LIMITS_MAXMEMORY".to_owned(), "2GiB".to_owned()),
            ("ANTECEDE_LIMITS_BULK".to_owned(), "1MiB".to_owned()),
        ],
        flags: flags(&[("limits.bulk", "2MiB")]),
        ..file("[limits]\nmaxmemory = \"1GiB\"\nconnections = 7\n")
    };
    let effective = Effective::of(&layers).unwrap();
    let config = effective.config().unwrap();
    assert_eq!(config.limits.memory_bytes_max, 2 << 30);
    assert_eq!(config.limits.bulk_bytes_max, 2 << 20);
    assert_eq!(config.limits.connections_max, 7);
    let shown = effective.show(true);
    assert!(shown.contains("limits.maxmemory = \"2GiB\"  # environment ANTECEDE_LIMITS_MAXMEMORY"));
    assert!(shown.contains("limits.connections = 7  # antecede.toml:3:1"));
    assert!(shown.contains("limits.bulk = \"2MiB\"  # flag --set limits.bulk"));
    assert!(shown.contains("limits.pipeline = 1024  # default"));
}

#[test]
fn a_password_is_not_shown() {
    let layers = Layers { flags: flags(&[("security.password", "sesame")]), ..Layers::default() };
    let effective = Effective::of(&layers).unwrap();
    assert!(!effective.show(true).contains("sesame"));
    assert!(!format!("{:?}", effective.config().unwrap()).contains("sesame"));
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_what_was_probably_meant() {
    let error = Config::load(&file("[limits]\nmaxmemroy = 5\n")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "antecede.toml:2:1: there is no key limits.maxmemroy; did you mean limits.maxmemory?\n  \
         | maxmemroy = 5\n  | ^^^^^^^^^"
    );
    let error = Config::load(&Layers {
        environment: vec![("ANTECEDE_LIMITS_MAXMEMROY".to_owned(), "5".to_owned())],
        ..Layers::default()
    })
    .unwrap_err();
    assert_eq!(error.suggestion.as_deref(), Some("limits.maxmemory"));
    let error = Config::load(&file("[limits]\npassword = \"x\"\n")).unwrap_err();
    assert_eq!(error.suggestion.as_deref(), Some("security.password"));
}

#[test]
fn a_value_of_the_wrong_form_is_refused_with_its_place() {
    let error = Config::load(&file("[limits]\nconnections = \"many\"\n")).unwrap_err();
    assert_eq!(error.message, "limits.connections wants a whole number, not string");
    assert_eq!(error.excerpt.unwrap().column, 15);
    let error = Config::load(&file("[clock]\nmax_drift = \"soon\"\n")).unwrap_err();
    assert!(error.to_string().starts_with("antecede.toml:2:1: clock.max_drift is \"soon\""));
    let error = Config::load(&file("[clock\n")).unwrap_err();
    assert!(matches!(error.origin, Some(Origin::File { line: 1, .. })), "{error}");
}

#[test]
fn a_file_for_all_nodes_and_flags_for_one_make_a_node() {
    let config = Config::load(&file(TWO)).unwrap();
    assert_eq!(config.node, NodeId { datacenter: DatacenterId(2), number: 1 });
    assert_eq!(config.listen.client, "127.0.0.1:7379");
    let layers = Layers { flags: flags(&[("node.datacenter", "east")]), ..file(TWO) };
    let config = Config::load(&layers).unwrap();
    assert_eq!(config.listen.client, "127.0.0.1:6379");
    assert_eq!(config.peers().count(), 1);
    let layers = Layers { flags: flags(&[("node.datacenter", "eats")]), ..file(TWO) };
    assert_eq!(Config::load(&layers).unwrap_err().suggestion.as_deref(), Some("east"));
}

#[test]
fn what_must_not_be_combined_is_refused() {
    let never = Layers { flags: flags(&[("storage.fsync", "never")]), ..file(TWO) };
    assert!(Config::load(&never).unwrap_err().message.contains("several datacenters"));
    let forgetful = Layers { flags: flags(&[("storage.memory", "false")]), ..file(TWO) };
    assert!(Config::load(&forgetful).unwrap_err().message.contains("storage.folder is missing"));
    let open = Layers { flags: flags(&[("listen.client", "0.0.0.0:6379")]), ..Layers::default() };
    assert!(Config::load(&open).unwrap_err().message.contains("protected mode"));
    let silent = Layers { flags: flags(&[("security.password", "")]), ..Layers::default() };
    assert!(Config::load(&silent).unwrap_err().message.contains("security.password must have"));
    let faulty = Layers {
        flags: flags(&[("faults.enabled", "true"), ("listen.admin", "0.0.0.0:1")]),
        ..Layers::default()
    };
    assert!(Config::load(&faulty).unwrap_err().message.contains("faults.enabled"));
    let nameless = file(&TWO.replace("id = \"5b0c6e0e8f5c4b7a9d3e2f1a0b9c8d7e\"", ""));
    assert!(Config::load(&nameless).unwrap_err().message.contains("deployment.id is missing"));
    let alone =
        Config::load(&Layers { flags: flags(&[("storage.fsync", "never")]), ..Layers::default() });
    assert_eq!(alone.unwrap().storage.fsync, Fsync::Never);
}

#[test]
fn what_lies_beyond_the_bounds_of_a_key_is_refused() {
    let load = |path: &str, value: &str| {
        // A word may need another key.
        let others = [("storage.memory", "true"), ("control.endpoints", "127.0.0.1:2379")];
        let all = [others.as_slice(), &[(path, value)]].concat();
        Config::load(&Layers { flags: flags(&all), ..Layers::default() })
    };
    for key in keys::KEYS.iter().filter(|key| !key.path.contains("[]") && key.path != "node.number")
    {
        let path = key.path;
        match key.bounds {
            keys::Bounds::Any => {}
            keys::Bounds::Numbers(least, most) => {
                assert!(load(path, &least.to_string()).is_ok(), "{path}");
                assert!(load(path, &(least - 1).to_string()).is_err(), "{path}");
                assert!(load(path, &(most + 1).to_string()).is_err(), "{path}");
            }
            keys::Bounds::Words(words) => {
                assert!(words.iter().all(|word| load(path, word).is_ok()), "{path}");
                assert!(load(path, "sometimes").is_err(), "{path}");
            }
            keys::Bounds::HexDigits(count) => {
                assert!(load(path, &"a".repeat(count)).is_ok(), "{path}");
                assert!(load(path, &"a".repeat(count + 1)).is_err(), "{path}");
            }
            keys::Bounds::Bytes(least, most) => {
                assert!(load(path, &"a".repeat(least)).is_ok(), "{path}");
                assert!(load(path, &"a".repeat(most)).is_ok(), "{path}");
                assert!(load(path, &"a".repeat(most + 1)).is_err(), "{path}");
            }
        }
    }
}

const THREE: &str = "\
[deployment]
id = \"5b0c6e0e8f5c4b7a9d3e2f1a0b9c8d7e\"

[[datacenter]]
id = 1
name = \"east\"
node = [
  { number = 1, client = \"127.0.0.1:1\", peer = \"127.0.0.1:11\", control = \"127.0.0.1:31\" },
  { number = 2, client = \"127.0.0.1:2\", peer = \"127.0.0.1:12\", control = \"127.0.0.1:32\" },
  { number = 3, client = \"127.0.0.1:3\", peer = \"127.0.0.1:13\", control = \"127.0.0.1:33\" },
  { number = 4, client = \"127.0.0.1:4\", peer = \"127.0.0.1:14\" },
]

[[datacenter]]
id = 2
name = \"west\"
node = [{ number = 1, client = \"127.0.0.1:5\", peer = \"127.0.0.1:15\" }]

[node]
datacenter = \"east\"
number = 3

[storage]
folder = \"/var/lib/antecede\"
";

fn three(more: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::load(&Layers { flags: flags(more), ..file(THREE) })
}

#[test]
fn one_line_makes_managers_decide_where_a_datacenter_has_several_nodes() {
    let fixed = three(&[]).unwrap();
    assert!(!fixed.is_managed() && fixed.control_members().is_empty());
    assert_eq!(fixed.control_address(), None);
    let managed = three(&[("control.store", "embedded")]).unwrap();
    assert!(managed.is_managed());
    let members: Vec<u16> = managed.control_members().keys().map(|node| node.number).collect();
    assert_eq!(members, [1, 2, 3]);
    assert_eq!(managed.control_address(), Some("127.0.0.1:33"));
    assert_eq!(managed.control_folder(), Some(Path::new("/var/lib/antecede")));
    let configuration = managed.configuration(managed.deployment.unwrap());
    let [east, west] = [DatacenterId(1), DatacenterId(2)];
    let serves = |id| configuration.datacenters[&id].chains.iter().all(|it| !it.serving.is_empty());
    assert!(!serves(east), "nobody serves before a manager says so");
    assert!(serves(west), "a datacenter of one node needs none");
    let other = three(&[("control.store", "embedded"), ("node.number", "4")]).unwrap();
    assert_eq!((other.control_address(), other.control_members().len()), (None, 3));
    let alone =
        three(&[("control.store", "embedded"), ("node.datacenter", "west"), ("node.number", "1")]);
    assert!(!alone.unwrap().is_managed());
    let one = three(&[("control.store", "embedded"), ("control.members", "1")]).unwrap();
    assert_eq!((one.control_address(), one.control_members().len()), (None, 1));
}

#[test]
fn an_agreement_that_cannot_begin_is_refused() {
    let refused = |more: &[(&str, &str)]| {
        let all = [&[("control.store", "embedded")], more].concat();
        three(&all).unwrap_err().message
    };
    assert!(refused(&[("control.members", "2")]).contains("it must be 1, 3 or 5"));
    assert!(refused(&[("control.members", "5")]).contains("has 4 nodes"));
    let error = three(&[("control.store", "etc")]).unwrap_err();
    assert!(error.message.contains("it must be none, embedded or etcd"));
    let deaf = file(&THREE.replace(", control = \"127.0.0.1:32\"", ""));
    let flagged = Layers { flags: flags(&[("control.store", "embedded")]), ..deaf };
    assert!(Config::load(&flagged).unwrap_err().message.contains("node 2 of datacenter east"));
    let homeless = file(&THREE.replace("folder = \"/var/lib/antecede\"", "memory = true"));
    let all = flags(&[("control.store", "embedded")]);
    let refused = Config::load(&Layers { flags: all, ..homeless.clone() }).unwrap_err();
    assert!(refused.message.contains("control.folder is missing"));
    let all = flags(&[("control.store", "embedded"), ("control.folder", "/tmp/agreement")]);
    assert!(Config::load(&Layers { flags: all, ..homeless }).is_ok());
}

#[test]
fn etcd_keeps_the_agreement_if_two_lines_say_so() {
    let etcd = |more: &[(&str, &str)]| {
        let lines =
            [("control.store", "etcd"), ("control.endpoints", "127.0.0.1:2379, etcd.east:2379")];
        three(&[&lines, more].concat())
    };
    let config = etcd(&[]).unwrap();
    assert!(config.is_managed());
    let found = config.control.etcd.as_ref().unwrap();
    assert_eq!(found.endpoints, ["127.0.0.1:2379", "etcd.east:2379"]);
    assert_eq!((found.prefix.as_str(), &found.credentials), ("/antecede", &None));
    assert_eq!(config.control_address(), Some("127.0.0.1:33"), "it listens to beats");
    assert_eq!((config.control_members().len(), config.control_needed()), (3, 1));
    let other = etcd(&[("node.number", "4")]).unwrap();
    assert_eq!((other.control_address(), other.control_members().len()), (None, 3));
    let named = etcd(&[("control.user", "us"), ("control.password", "sesame")]).unwrap();
    assert_eq!(named.control.etcd.as_ref().unwrap().credentials.as_ref().unwrap().1, "sesame");
    assert!(!format!("{named:?}").contains("sesame"));

    let refused = |more: &[(&str, &str)]| etcd(more).unwrap_err().message;
    assert!(refused(&[("control.endpoints", "here")]).contains("it wants an address"));
    assert!(refused(&[("control.user", "us")]).contains("control.user needs control.password"));
    assert!(refused(&[("control.key", "k")]).contains("control.key needs control.certificate"));
    let pair = [("control.certificate", "c"), ("control.key", "k")];
    assert!(refused(&pair).contains("needs control.ca"));
    let error = three(&[("control.store", "etcd")]).unwrap_err();
    assert!(error.message.contains("control.endpoints is missing"));
    let deaf: String = THREE.replace(", control = ", ", admin = ");
    let store = "\n[control]\nstore = \"etcd\"\nendpoints = [\"127.0.0.1:2379\"]\n";
    let error = Config::load(&file(&format!("{deaf}{store}"))).unwrap_err();
    assert!(error.message.contains("nobody would hear who lives"), "{error}");
    let wrong = store.replace("\"127.0.0.1:2379\"", "2379");
    let error = Config::load(&file(&format!("{THREE}{wrong}"))).unwrap_err();
    assert!(error.message.contains("wants a list of addresses"), "{error}");
}
