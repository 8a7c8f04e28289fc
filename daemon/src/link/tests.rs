//! Against this machine's own kernel: the controller of generic netlink answers everywhere.

use super::*;

fn get_family(name: &str) -> Vec<u8> {
    let mut payload = vec![linux::CTRL_CMD_GETFAMILY, 1, 0, 0];
    payload.extend((4 + name.len() as u16 + 1).to_ne_bytes());
    payload.extend(linux::CTRL_ATTR_FAMILY_NAME.to_ne_bytes());
    payload.extend(name.as_bytes());
    payload.push(0);
    payload.resize(payload.len().next_multiple_of(4), 0);
    payload
}

#[tokio::test]
async fn an_answer_and_its_acknowledgement_belong_to_their_request() {
    let mut channel = Channel::open().expect("a netlink socket");
    // An answer that nobody waits for any more must not be taken for the next one's.
    let stale = frame::encode(linux::GENL_ID_CTRL, true, 77, &[linux::CTRL_CMD_GETFAMILY, 1, 0, 0]);
    channel.socket.send(&stale).await.expect("sent");
    let answer = channel.request(linux::GENL_ID_CTRL, false, &get_family("nlctrl")).await;
    let parts = answer.expect("the controller knows itself");
    assert_eq!(parts.len(), 1);
    assert_eq!(parts[0][0], linux::CTRL_CMD_NEWFAMILY);
}

#[tokio::test]
async fn a_dump_is_collected_to_its_end() {
    let mut channel = Channel::open().expect("a netlink socket");
    let all = [linux::CTRL_CMD_GETFAMILY, 1, 0, 0];
    for _ in 0..2 {
        let families = channel.request(linux::GENL_ID_CTRL, true, &all).await.expect("a list");
        assert!(families.iter().any(|part| part.windows(7).any(|w| w == b"nlctrl\0")));
        assert!(families.iter().all(|part| part[0] == linux::CTRL_CMD_NEWFAMILY));
    }
}

#[tokio::test]
async fn a_refusal_keeps_its_number_and_the_kernels_words() {
    let mut channel = Channel::open().expect("a netlink socket");
    let absent = channel.request(linux::GENL_ID_CTRL, false, &get_family("no-such-family")).await;
    assert_eq!(absent.expect_err("no such family").errno(), Some(nix::libc::ENOENT));

    // An attribute that is too long for a name is refused with a sentence.
    let long = get_family(&"x".repeat(200));
    let error = channel.request(linux::GENL_ID_CTRL, false, &long).await.expect_err("too long");
    let LinkError::Refused(refusal) = error else { panic!("{error}") };
    assert!(refusal.text.is_some_and(|text| text.contains("validation")), "extack's text");
}

#[tokio::test]
async fn without_the_module_it_says_what_to_load() {
    match Link::open().await {
        Ok(link) => assert_ne!(link.family().id, 0),
        Err(error) => assert!(error.to_string().contains("modprobe dm_remap_shim"), "{error}"),
    }
}

/// A list of all families has others before it and after it.
#[tokio::test]
async fn among_all_families_the_module_is_there_or_not() {
    match Link::if_loaded().await {
        Ok(link) => assert_ne!(link.family().id, 0),
        Err(error) => assert!(matches!(error, LinkError::NoModule), "{error}"),
    }
}
