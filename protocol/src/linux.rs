//! Numbers of netlink itself, compared with `linux/netlink.h` and `linux/genetlink.h` by build.rs.

constants! { NUMBERS {
    NLM_F_REQUEST: u16 = 0x01;
    NLM_F_ACK: u16 = 0x04;
    NLM_F_DUMP: u16 = 0x300;
    NLM_F_CAPPED: u16 = 0x100;
    NLM_F_ACK_TLVS: u16 = 0x200;
    NLMSG_ERROR: u16 = 2;
    NLMSG_DONE: u16 = 3;
    /// Kinds below are netlink's own.
    NLMSG_MIN_TYPE: u16 = 16;
    NLMSGERR_ATTR_MSG: u16 = 1;
    GENL_ID_CTRL: u16 = 16;
    CTRL_CMD_NEWFAMILY: u8 = 1;
    CTRL_CMD_GETFAMILY: u8 = 3;
    CTRL_ATTR_FAMILY_ID: u16 = 1;
    CTRL_ATTR_FAMILY_NAME: u16 = 2;
    CTRL_ATTR_MCAST_GROUPS: u16 = 7;
    CTRL_ATTR_MCAST_GRP_NAME: u16 = 1;
    CTRL_ATTR_MCAST_GRP_ID: u16 = 2;
} }
