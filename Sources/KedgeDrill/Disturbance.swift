// What was done to a drill while it ran: a full disk, a server that somebody killed. A check that failed then says
// nothing about the backup.

import KedgeCore

/// The state in which failed checks left the scratch server and its file system.
struct Disturbance {
    var scratch: RawPath
    var space: FileSystemSpace
    /// A server that runs out of room may free as much as it had begun to write.
    var walSegmentSize: UInt64
    /// How the server ended; nil while it runs.
    var ended: Subprocess.Status?
    var log: ServerLog

    init(
        scratch: RawPath, space: FileSystemSpace, walSegmentSize: UInt64, ended: Subprocess.Status?, log: ServerLog
    ) {
        self.scratch = scratch
        self.space = space
        self.walSegmentSize = walSegmentSize
        self.ended = ended
        self.log = log
    }

    /// The state at this moment.
    init(
        of scratch: ScratchDirectory, _ server: ScratchServer, walSegmentSize: UInt64
    ) throws(KedgeError) {
        self.init(
            scratch: scratch.path, space: try FileSystemSpace(near: scratch.path), walSegmentSize: walSegmentSize,
            ended: server.ended, log: ServerLog(try server.log()))
    }

    /// The error to end the drill with; nil where nothing but the data can be the reason.
    var error: KedgeError? {
        if space.lacksInodes || space.freeBytes < max(2 * min(walSegmentSize, 1 << 30), 16 << 20) {
            return KedgeError(
                .noSpace, "could not finish the drill in \"\(scratch)\": the file system is full",
                detail: space.sentence,
                hint: "Free space there, or set drill-directory to a larger file system.")
        }
        var reason: String?
        if case .signalled(let signal)? = ended, [SignalNumber.kill, SignalNumber.terminate].contains(signal) {
            reason = "Its server got signal \(signal)."
        } else if let words = log.killedProcess {
            reason = "Its log says: \(words)."
        }
        guard let reason else { return nil }
        return KedgeError(
            .databaseUnavailable, "could not finish the drill in \"\(scratch)\": its server was killed", detail: reason,
            hint: "Look into the system's log whether there was too little memory, then drill again.")
    }

    /// signal(7).
    private enum SignalNumber {
        static let kill: Int32 = 9
        static let terminate: Int32 = 15
    }
}
