// Standard output and standard error.

import CSystem
import Glibc

/// One of the two streams that a process is started with for its output. Nobody owns them.
package enum StandardStream: Sendable {
    case output, error

    /// Keeps the numbers of streams that we were started without from being given to files of ours, which would then
    /// get what is meant for a person. Using such a stream fails. To be called before anything is opened.
    package static func occupyMissing() { csystem_occupy_standard_streams() }

    private var number: Int32 { self == .output ? STDOUT_FILENO : STDERR_FILENO }

    /// Writes all bytes. Throws `no-space` or `input-output`, also when the reader of a pipe has gone.
    package func write(_ bytes: [UInt8]) throws(KedgeError) {
        var written = 0
        while written < bytes.count {
            let count = bytes.withUnsafeBytes { buffer in
                Glibc.write(number, buffer.baseAddress.map { $0 + written }, buffer.count - written)
            }
            if count < 0 {
                let failure = errno
                if failure == EINTR { continue }
                let isFull = failure == ENOSPC || failure == EDQUOT
                throw KedgeError(
                    isFull ? .noSpace : .inputOutput, "could not write to standard \(self)",
                    detail: "The system said: \(String(cString: strerror(failure))).",
                    hint: "Check where the output goes.")
            }
            written += count
        }
    }

    /// Whether a person may be watching.
    package var isTerminal: Bool { isatty(number) == 1 }

    /// The width of the terminal now; 80 where it is not known.
    package var columns: Int {
        let columns = Int(csystem_terminal_columns(number))
        return columns > 0 ? columns : 80
    }
}
