//! Parses the commands that a connection answers for itself, and those of transactions.

use super::{
    ClientCommand, ClientFilter, ConnectionCommand, FixedReply, Hello, Parsed, ReplyMode,
    error::CommandError, row::Call, strings::is_word,
};
use crate::resp::integer;

/// Kinds of clients that Redis knows.
const CLIENT_KINDS: [&str; 5] = ["normal", "master", "replica", "slave", "pubsub"];

fn answered<'a>(command: ConnectionCommand<'a>) -> Result<Parsed<'a>, CommandError> {
    Ok(Parsed::Connection(command))
}

fn of_client<'a>(command: ClientCommand<'a>) -> Result<Parsed<'a>, CommandError> {
    answered(ConnectionCommand::Client(command))
}

fn fixed<'a>(reply: FixedReply) -> Result<Parsed<'a>, CommandError> {
    answered(ConnectionCommand::Fixed(reply))
}

pub(super) fn ping<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    match call.from(1) {
        [] => answered(ConnectionCommand::Ping(None)),
        [text] => answered(ConnectionCommand::Ping(Some(text))),
        _ => Err(CommandError::WrongArity { name: call.row.name }),
    }
}

pub(super) fn echo<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    answered(ConnectionCommand::Echo(call.argument(1)))
}

pub(super) fn select<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    let number = call.integer(1)?;
    if i32::try_from(number).is_err() {
        return Err(CommandError::fixed(
            "ERR value is out of range, value must between -2147483648 and 2147483647",
        ));
    }
    if number != 0 {
        return Err(CommandError::fixed("ERR DB index is out of range"));
    }
    fixed(FixedReply::Ok)
}

pub(super) fn quit<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    answered(ConnectionCommand::Quit)
}

pub(super) fn reset<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    answered(ConnectionCommand::Reset)
}

pub(super) fn hello<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    let mut hello = Hello::default();
    if 1 < call.arguments.len() {
        let wrong = "ERR Protocol version is not an integer or out of range";
        let version = integer::parse(call.argument(1)).ok_or_else(|| CommandError::fixed(wrong))?;
        if version != 2 && version != 3 {
            return Err(CommandError::fixed("NOPROTO unsupported protocol version"));
        }
        hello.version = Some(version);
    }
    let mut options = call.arguments.get(2..).unwrap_or_default();
    while let [option, rest @ ..] = options {
        options = match rest {
            [user, password, rest @ ..] if is_word(option, "AUTH") => {
                hello.credentials = Some((user, password));
                rest
            }
            [name, rest @ ..] if is_word(option, "SETNAME") => {
                check_name(name)?;
                hello.name = Some(name);
                rest
            }
            _ => {
                let before = "ERR Syntax error in HELLO option '";
                return Err(CommandError::quoting(before, option, "'"));
            }
        };
    }
    answered(ConnectionCommand::Hello(hello))
}

pub(super) fn auth<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    match call.from(1) {
        [password] => answered(ConnectionCommand::Auth { user: None, password }),
        [user, password] => answered(ConnectionCommand::Auth { user: Some(user), password }),
        _ => Err(CommandError::Syntax),
    }
}

/// Names stand in lists of clients, one a line, separated by blanks.
fn check_name(name: &[u8]) -> Result<(), CommandError> {
    if name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        return Ok(());
    }
    Err(CommandError::fixed(
        "ERR Client names cannot contain spaces, newlines or special characters.",
    ))
}

pub(super) fn client_id<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    of_client(ClientCommand::Id)
}

pub(super) fn client_getname<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    of_client(ClientCommand::Name)
}

pub(super) fn client_setname<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    check_name(call.argument(2))?;
    of_client(ClientCommand::SetName(call.argument(2)))
}

pub(super) fn client_setinfo<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    let (attribute, value) = (call.argument(2), call.argument(3));
    let is_plain = value.iter().all(|byte| (b'!'..=b'~').contains(byte));
    if is_word(attribute, "LIB-NAME") && is_plain {
        of_client(ClientCommand::SetLibraryName(value))
    } else if is_word(attribute, "LIB-VER") && is_plain {
        of_client(ClientCommand::SetLibraryVersion(value))
    } else if is_plain {
        Err(CommandError::quoting("ERR Unrecognized option '", attribute, "'"))
    } else {
        let after = " cannot contain spaces, newlines or special characters.";
        Err(CommandError::quoting("ERR ", &attribute.to_ascii_lowercase(), after))
    }
}

pub(super) fn client_info<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    of_client(ClientCommand::Info)
}

pub(super) fn client_list<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    let mut filter = ClientFilter::default();
    match call.from(2) {
        [] => {}
        [option, kind] if is_word(option, "TYPE") => filter.is_empty = !is_normal_kind(kind)?,
        [option, first, others @ ..] if is_word(option, "ID") => {
            for id in std::iter::once(first).chain(others) {
                let wrong = CommandError::fixed("ERR Invalid client ID");
                filter.ids.push(parse_id(id).ok_or(wrong)?);
            }
        }
        _ => return Err(CommandError::Syntax),
    }
    of_client(ClientCommand::List(filter))
}

pub(super) fn client_kill<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    let mut filter = ClientFilter::default();
    let mut skip_me = true;
    if let [address] = call.from(2) {
        filter.address = Some(address);
        let (skip_me, is_old_form) = (false, true);
        return of_client(ClientCommand::Kill { filter, skip_me, is_old_form });
    }
    for option in call.from(2).chunks(2) {
        let [name, value] = option else { return Err(CommandError::Syntax) };
        if is_word(name, "ID") {
            let wrong = CommandError::fixed("ERR client-id should be greater than 0");
            filter.ids = vec![parse_id(value).ok_or(wrong)?];
        } else if is_word(name, "ADDR") {
            filter.address = Some(value);
        } else if is_word(name, "LADDR") {
            filter.local_address = Some(value);
        } else if is_word(name, "TYPE") {
            filter.is_empty |= !is_normal_kind(value)?;
        } else if is_word(name, "USER") {
            if !is_default_user(value) {
                return Err(CommandError::quoting("ERR No such user '", value, "'"));
            }
        } else if is_word(name, "SKIPME") && is_word(value, "yes") {
            skip_me = true;
        } else if is_word(name, "SKIPME") && is_word(value, "no") {
            skip_me = false;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    of_client(ClientCommand::Kill { filter, skip_me, is_old_form: false })
}

/// Whether a name is that of the one user there is.
pub(in crate::resp) fn is_default_user(name: &[u8]) -> bool {
    name == b"default"
}

fn parse_id(text: &[u8]) -> Option<u64> {
    integer::parse(text).and_then(|id| u64::try_from(id).ok()).filter(|id| 0 < *id)
}

fn is_normal_kind(kind: &[u8]) -> Result<bool, CommandError> {
    if CLIENT_KINDS.iter().any(|known| is_word(kind, known)) {
        return Ok(is_word(kind, "normal"));
    }
    Err(CommandError::quoting("ERR Unknown client type '", kind, "'"))
}

pub(super) fn client_reply<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    let mode = call.argument(2);
    if is_word(mode, "ON") {
        of_client(ClientCommand::Reply(ReplyMode::On))
    } else if is_word(mode, "OFF") {
        of_client(ClientCommand::Reply(ReplyMode::Off))
    } else if is_word(mode, "SKIP") {
        of_client(ClientCommand::Reply(ReplyMode::Skip))
    } else {
        Err(CommandError::Syntax)
    }
}

/// `CLIENT NO-EVICT`, `CLIENT NO-TOUCH`: nothing is evicted here, so both are always so.
pub(super) fn client_switch<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    let word = call.argument(2);
    if is_word(word, "ON") || is_word(word, "OFF") {
        return fixed(FixedReply::Ok);
    }
    Err(CommandError::Syntax)
}

pub(super) fn client_tracking<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    let word = call.argument(2);
    if is_word(word, "OFF") {
        return fixed(FixedReply::Ok);
    }
    if is_word(word, "ON") {
        return Err(CommandError::fixed(
            "ERR CLIENT TRACKING ON is not available yet: the server does not tell clients which \
             keys have changed; read without a client-side cache",
        ));
    }
    Err(CommandError::Syntax)
}

pub(super) fn client_caching<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    Err(CommandError::fixed(
        "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or \
         OPTOUT mode enabled",
    ))
}

pub(super) fn client_getredir<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    fixed(FixedReply::Integer(-1))
}

pub(super) fn client_trackinginfo<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    fixed(FixedReply::NotTracking)
}

pub(super) fn client_pause<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    Err(CommandError::fixed(
        "ERR CLIENT PAUSE is not available yet: clients of other nodes would go on writing",
    ))
}

pub(super) fn client_unpause<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    fixed(FixedReply::Ok)
}

/// `CLIENT UNBLOCK`: no command that can be unblocked exists here.
pub(super) fn client_unblock<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    call.integer(2)?;
    match call.from(3) {
        [] => fixed(FixedReply::Integer(0)),
        [word] if is_word(word, "TIMEOUT") || is_word(word, "ERROR") => {
            fixed(FixedReply::Integer(0))
        }
        _ => Err(CommandError::fixed("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")),
    }
}

pub(super) fn accept<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    fixed(FixedReply::Ok)
}

pub(super) fn multi<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    answered(ConnectionCommand::Multi)
}

pub(super) fn exec<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    answered(ConnectionCommand::Exec(None))
}

pub(super) fn discard<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    answered(ConnectionCommand::Discard)
}

pub(super) fn watch<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    answered(ConnectionCommand::Watch { keys: call.from(1).to_vec() })
}

pub(super) fn unwatch<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    answered(ConnectionCommand::Unwatch)
}
