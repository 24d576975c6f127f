"""The counters of /proc/net/snmp and /proc/net/netstat that the stack moves, under the kernel's names.

Counter `ActiveOpens` of group `Tcp` is the field TcpActiveOpens.  Each place that counts names the field; there is no
other way to count.  A counter that the kernel has and the stack never moves is absent here: it reads 0.
"""

from __future__ import annotations

_NAMES = (
    "IpInReceives", "IpInHdrErrors", "IpInAddrErrors", "IpInUnknownProtos", "IpInDiscards", "IpInDelivers",
    "IpOutRequests", "IpOutTransmits", "IpOutDiscards", "IpOutNoRoutes", "IpReasmReqds", "IpReasmFails",
    "IpInTruncatedPkts", "IcmpInMsgs", "IcmpInErrors", "IcmpInCsumErrors", "IcmpInDestUnreachs", "IcmpInTimeExcds",
    "IcmpInParmProbs", "IcmpInSrcQuenchs", "IcmpInRedirects", "IcmpInEchos", "IcmpInEchoReps", "IcmpOutMsgs",
    "IcmpOutErrors", "IcmpOutDestUnreachs", "IcmpOutEchoReps", "TcpActiveOpens", "TcpPassiveOpens",
    "TcpAttemptFails", "TcpEstabResets", "TcpCurrEstab", "TcpInSegs", "TcpOutSegs", "TcpRetransSegs", "TcpInErrs",
    "TcpOutRsts", "TcpInCsumErrors", "TcpExtEmbryonicRsts", "TcpExtOutOfWindowIcmps", "TcpExtTW",
    "TcpExtTWRecycled", "TcpExtTWKilled", "TcpExtPAWSActive", "TcpExtPAWSEstab", "TcpExtPAWSOldAck",
    "TcpExtPAWSTimewait", "TcpExtBeyondWindow", "TcpExtTSEcrRejected", "TcpExtDelayedACKs", "TcpExtDelayedACKLost",
    "TcpExtDelayedACKLocked", "TcpExtListenOverflows", "TcpExtListenDrops", "TcpExtTCPHPHits", "TcpExtTCPPureAcks",
    "TcpExtTCPHPAcks", "TcpExtTCPRenoRecovery", "TcpExtTCPSackRecovery", "TcpExtTCPFastRetrans",
    "TcpExtTCPSlowStartRetrans", "TcpExtTCPTimeouts", "TcpExtTCPLossProbes", "TcpExtTCPRenoFailures",
    "TcpExtTCPSackFailures", "TcpExtTCPLossFailures", "TcpExtTCPDSACKOldSent", "TcpExtTCPDSACKOfoSent",
    "TcpExtTCPAbortOnData", "TcpExtTCPAbortOnClose", "TcpExtTCPAbortOnMemory", "TcpExtTCPAbortOnTimeout",
    "TcpExtTCPAbortOnLinger", "TcpExtTCPAbortFailed", "TcpExtTCPMemoryPressures", "TcpExtTCPBacklogDrop",
    "TcpExtTCPMinTTLDrop", "TcpExtTCPTimeWaitOverflow", "TcpExtTCPReqQFullDoCookies", "TcpExtTCPReqQFullDrop",
    "TcpExtTCPRetransFail", "TcpExtTCPRcvCoalesce", "TcpExtTCPOFOQueue", "TcpExtTCPOFODrop", "TcpExtTCPOFOMerge",
    "TcpExtTCPChallengeACK", "TcpExtTCPSYNChallenge", "TcpExtTCPSpuriousRTOs", "TcpExtTCPSpuriousRtxHostQueues",
    "TcpExtTCPAutoCorking", "TcpExtTCPFromZeroWindowAdv", "TcpExtTCPToZeroWindowAdv", "TcpExtTCPWantZeroWindowAdv",
    "TcpExtTCPSynRetrans", "TcpExtTCPOrigDataSent", "TcpExtTCPACKSkippedSynRecv", "TcpExtTCPACKSkippedPAWS",
    "TcpExtTCPACKSkippedSeq", "TcpExtTCPACKSkippedFinWait2", "TcpExtTCPACKSkippedTimeWait",
    "TcpExtTCPACKSkippedChallenge", "TcpExtTCPWinProbe", "TcpExtTCPKeepAlive", "TcpExtTCPDelivered",
    "TcpExtTCPAckCompressed", "TcpExtTCPZeroWindowDrop", "TcpExtTCPRcvQDrop", "TcpExtTCPWqueueTooBig",
    "TcpExtTCPMD5NotFound", "TcpExtTCPMD5Unexpected", "TcpExtTCPMD5Failure", "TcpExtTcpTimeoutRehash",
    "TcpExtTcpDuplicateDataRehash", "TcpExtLockDroppedIcmps", "TcpExtSyncookiesSent", "TcpExtSyncookiesRecv",
    "TcpExtSyncookiesFailed",
)  # fmt: skip


class Mib:
    """One number a counter."""

    __slots__ = (
        "IcmpInCsumErrors", "IcmpInDestUnreachs", "IcmpInEchoReps", "IcmpInEchos", "IcmpInErrors", "IcmpInMsgs",
        "IcmpInParmProbs", "IcmpInRedirects", "IcmpInSrcQuenchs", "IcmpInTimeExcds", "IcmpOutDestUnreachs",
        "IcmpOutEchoReps", "IcmpOutErrors", "IcmpOutMsgs", "IpInAddrErrors", "IpInDelivers", "IpInDiscards",
        "IpInHdrErrors", "IpInReceives", "IpInTruncatedPkts", "IpInUnknownProtos", "IpOutDiscards", "IpOutNoRoutes",
        "IpOutRequests", "IpOutTransmits", "IpReasmFails", "IpReasmReqds", "TcpActiveOpens", "TcpAttemptFails",
        "TcpCurrEstab", "TcpEstabResets", "TcpExtBeyondWindow", "TcpExtDelayedACKLocked", "TcpExtDelayedACKLost",
        "TcpExtDelayedACKs", "TcpExtEmbryonicRsts", "TcpExtListenDrops", "TcpExtListenOverflows",
        "TcpExtLockDroppedIcmps", "TcpExtOutOfWindowIcmps", "TcpExtPAWSActive", "TcpExtPAWSEstab",
        "TcpExtPAWSOldAck", "TcpExtPAWSTimewait", "TcpExtSyncookiesFailed", "TcpExtSyncookiesRecv",
        "TcpExtSyncookiesSent", "TcpExtTCPACKSkippedChallenge", "TcpExtTCPACKSkippedFinWait2",
        "TcpExtTCPACKSkippedPAWS", "TcpExtTCPACKSkippedSeq", "TcpExtTCPACKSkippedSynRecv",
        "TcpExtTCPACKSkippedTimeWait", "TcpExtTCPAbortFailed", "TcpExtTCPAbortOnClose", "TcpExtTCPAbortOnData",
        "TcpExtTCPAbortOnLinger", "TcpExtTCPAbortOnMemory", "TcpExtTCPAbortOnTimeout", "TcpExtTCPAckCompressed",
        "TcpExtTCPAutoCorking", "TcpExtTCPBacklogDrop", "TcpExtTCPChallengeACK", "TcpExtTCPDSACKOfoSent",
        "TcpExtTCPDSACKOldSent", "TcpExtTCPDelivered", "TcpExtTCPFastRetrans", "TcpExtTCPFromZeroWindowAdv",
        "TcpExtTCPHPAcks", "TcpExtTCPHPHits", "TcpExtTCPKeepAlive", "TcpExtTCPLossFailures", "TcpExtTCPLossProbes",
        "TcpExtTCPMD5Failure", "TcpExtTCPMD5NotFound", "TcpExtTCPMD5Unexpected", "TcpExtTCPMemoryPressures",
        "TcpExtTCPMinTTLDrop", "TcpExtTCPOFODrop", "TcpExtTCPOFOMerge", "TcpExtTCPOFOQueue",
        "TcpExtTCPOrigDataSent", "TcpExtTCPPureAcks", "TcpExtTCPRcvCoalesce", "TcpExtTCPRcvQDrop",
        "TcpExtTCPRenoFailures", "TcpExtTCPRenoRecovery", "TcpExtTCPReqQFullDoCookies", "TcpExtTCPReqQFullDrop",
        "TcpExtTCPRetransFail", "TcpExtTCPSYNChallenge", "TcpExtTCPSackFailures", "TcpExtTCPSackRecovery",
        "TcpExtTCPSlowStartRetrans", "TcpExtTCPSpuriousRTOs", "TcpExtTCPSpuriousRtxHostQueues",
        "TcpExtTCPSynRetrans", "TcpExtTCPTimeWaitOverflow", "TcpExtTCPTimeouts", "TcpExtTCPToZeroWindowAdv",
        "TcpExtTCPWantZeroWindowAdv", "TcpExtTCPWinProbe", "TcpExtTCPWqueueTooBig", "TcpExtTCPZeroWindowDrop",
        "TcpExtTSEcrRejected", "TcpExtTW", "TcpExtTWKilled", "TcpExtTWRecycled", "TcpExtTcpDuplicateDataRehash",
        "TcpExtTcpTimeoutRehash", "TcpInCsumErrors", "TcpInErrs", "TcpInSegs", "TcpOutRsts", "TcpOutSegs",
        "TcpPassiveOpens", "TcpRetransSegs",
    )  # fmt: skip

    IpInReceives: int
    IpInHdrErrors: int
    IpInAddrErrors: int
    IpInUnknownProtos: int
    IpInDiscards: int
    IpInDelivers: int
    IpOutRequests: int
    IpOutTransmits: int
    IpOutDiscards: int
    IpOutNoRoutes: int
    IpReasmReqds: int
    IpReasmFails: int
    IpInTruncatedPkts: int
    IcmpInMsgs: int
    IcmpInErrors: int
    IcmpInCsumErrors: int
    IcmpInDestUnreachs: int
    IcmpInTimeExcds: int
    IcmpInParmProbs: int
    IcmpInSrcQuenchs: int
    IcmpInRedirects: int
    IcmpInEchos: int
    IcmpInEchoReps: int
    IcmpOutMsgs: int
    IcmpOutErrors: int
    IcmpOutDestUnreachs: int
    IcmpOutEchoReps: int
    TcpActiveOpens: int
    TcpPassiveOpens: int
    TcpAttemptFails: int
    TcpEstabResets: int
    TcpCurrEstab: int
    TcpInSegs: int
    TcpOutSegs: int
    TcpRetransSegs: int
    TcpInErrs: int
    TcpOutRsts: int
    TcpInCsumErrors: int
    TcpExtEmbryonicRsts: int
    TcpExtOutOfWindowIcmps: int
    TcpExtTW: int
    TcpExtTWRecycled: int
    TcpExtTWKilled: int
    TcpExtPAWSActive: int
    TcpExtPAWSEstab: int
    TcpExtPAWSOldAck: int
    TcpExtPAWSTimewait: int
    TcpExtBeyondWindow: int
    TcpExtTSEcrRejected: int
    TcpExtDelayedACKs: int
    TcpExtDelayedACKLost: int
    TcpExtDelayedACKLocked: int
    TcpExtListenOverflows: int
    TcpExtListenDrops: int
    TcpExtTCPHPHits: int
    TcpExtTCPPureAcks: int
    TcpExtTCPHPAcks: int
    TcpExtTCPRenoRecovery: int
    TcpExtTCPSackRecovery: int
    TcpExtTCPFastRetrans: int
    TcpExtTCPSlowStartRetrans: int
    TcpExtTCPTimeouts: int
    TcpExtTCPLossProbes: int
    TcpExtTCPRenoFailures: int
    TcpExtTCPSackFailures: int
    TcpExtTCPLossFailures: int
    TcpExtTCPDSACKOldSent: int
    TcpExtTCPDSACKOfoSent: int
    TcpExtTCPAbortOnData: int
    TcpExtTCPAbortOnClose: int
    TcpExtTCPAbortOnMemory: int
    TcpExtTCPAbortOnTimeout: int
    TcpExtTCPAbortOnLinger: int
    TcpExtTCPAbortFailed: int
    TcpExtTCPMemoryPressures: int
    TcpExtTCPBacklogDrop: int
    TcpExtTCPMinTTLDrop: int
    TcpExtTCPTimeWaitOverflow: int
    TcpExtTCPReqQFullDoCookies: int
    TcpExtTCPReqQFullDrop: int
    TcpExtTCPRetransFail: int
    TcpExtTCPRcvCoalesce: int
    TcpExtTCPOFOQueue: int
    TcpExtTCPOFODrop: int
    TcpExtTCPOFOMerge: int
    TcpExtTCPChallengeACK: int
    TcpExtTCPSYNChallenge: int
    TcpExtTCPSpuriousRTOs: int
    TcpExtTCPSpuriousRtxHostQueues: int
    TcpExtTCPAutoCorking: int
    TcpExtTCPFromZeroWindowAdv: int
    TcpExtTCPToZeroWindowAdv: int
    TcpExtTCPWantZeroWindowAdv: int
    TcpExtTCPSynRetrans: int
    TcpExtTCPOrigDataSent: int
    TcpExtTCPACKSkippedSynRecv: int
    TcpExtTCPACKSkippedPAWS: int
    TcpExtTCPACKSkippedSeq: int
    TcpExtTCPACKSkippedFinWait2: int
    TcpExtTCPACKSkippedTimeWait: int
    TcpExtTCPACKSkippedChallenge: int
    TcpExtTCPWinProbe: int
    TcpExtTCPKeepAlive: int
    TcpExtTCPDelivered: int
    TcpExtTCPAckCompressed: int
    TcpExtTCPZeroWindowDrop: int
    TcpExtTCPRcvQDrop: int
    TcpExtTCPWqueueTooBig: int
    TcpExtTCPMD5NotFound: int
    TcpExtTCPMD5Unexpected: int
    TcpExtTCPMD5Failure: int
    TcpExtTcpTimeoutRehash: int
    TcpExtTcpDuplicateDataRehash: int
    TcpExtLockDroppedIcmps: int
    TcpExtSyncookiesSent: int
    TcpExtSyncookiesRecv: int
    TcpExtSyncookiesFailed: int

    def __init__(self) -> None:
        for name in _NAMES:
            setattr(self, name, 0)


def mib_get(mib: Mib, name: str) -> int:
    """Value of `Group.Counter`, e.g. `Tcp.ActiveOpens`; 0 for a counter that this stack has not."""
    value: int = getattr(mib, name.replace(".", "", 1), 0)
    return value


def mib_snapshot(mib: Mib) -> dict[str, int]:
    """All counters by `Group.Counter`."""
    groups = ("TcpExt", "Tcp", "Icmp", "Ip")
    values: dict[str, int] = {}
    for name in _NAMES:
        group = next(g for g in groups if name.startswith(g))
        values[f"{group}.{name[len(group) :]}"] = getattr(mib, name)
    return values
