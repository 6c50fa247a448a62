// Who a process is, so that another one can tell later whether it still runs.
//
// A process number alone says little: numbers are used again, other hosts have them too, and a container counts its
// own. So it goes with the boot, the namespace of process numbers and the moment of its start. "Has ended" is said only
// where all of that is known and proves it; everything else counts as running.

import Glibc

/// A process of some host, told apart from every other that has or had its number.
package struct ProcessIdentity: Hashable, Sendable {
    package var hostName: String
    package var processID: Int32
    /// Of the kernel's present run (random(4), boot_id); nil where it could not be read.
    package var bootID: String?
    /// The namespace that the number belongs to, such as `pid:[4026531836]` (pid_namespaces(7)).
    package var namespace: String?
    /// When it began, in clock ticks since boot (proc_pid_stat(5), field 22).
    package var startTicks: UInt64?

    package init(
        hostName: String, processID: Int32, bootID: String? = nil, namespace: String? = nil, startTicks: UInt64? = nil
    ) {
        self.hostName = hostName
        self.processID = processID
        self.bootID = bootID
        self.namespace = namespace
        self.startTicks = startTicks
    }

    /// The calling process.
    package static func current(hostName: String) -> ProcessIdentity {
        let own = getpid()
        return ProcessIdentity(
            hostName: hostName, processID: own, bootID: firstLine("/proc/sys/kernel/random/boot_id"),
            namespace: link("/proc/self/ns/pid"), startTicks: ProcessStatus(of: own)?.startTicks)
    }

    /// Whether it surely runs no more, as seen by `observer`, the calling process. False where that can't be known: on
    /// another host, after an unknown boot, in another namespace.
    package func hasEnded(seenBy observer: ProcessIdentity) -> Bool {
        guard let bootID, bootID == observer.bootID, let namespace, namespace == observer.namespace, processID > 0
        else { return false }
        // Asked for by number: /proc may hide the processes of other users (hidepid), the kernel does not.
        if kill(processID, 0) != 0 && errno == ESRCH { return true }
        guard let status = ProcessStatus(of: processID) else { return false }
        if status.isZombie { return true }
        guard let startTicks, let present = status.startTicks else { return false }
        return present != startTicks
    }

    private static func firstLine(_ path: RawPath) -> String? {
        guard let bytes = readProcessFile(path) else { return nil }
        let line = bytes.prefix { $0 != 0x0A }
        return line.isEmpty ? nil : String(decoding: line, as: UTF8.self)
    }

    private static func link(_ path: RawPath) -> String? {
        do throws(KedgeError) {
            return try FileSystem.symbolicLinkTarget(at: path).text
        } catch {
            return nil
        }
    }
}

/// What /proc tells of a process.
private struct ProcessStatus {
    let isZombie: Bool
    let startTicks: UInt64?

    /// Nil where it can't be seen.
    init?(of process: Int32) {
        guard let bytes = readProcessFile(RawPath("/proc/\(process)/stat")) else { return nil }
        // The name, in parentheses, may hold anything; the fields after it begin with the state, the third of all.
        guard let parenthesis = bytes.lastIndex(of: UInt8(ascii: ")")) else { return nil }
        let fields = bytes[(parenthesis + 1)...].split(separator: UInt8(ascii: " "))
        guard let state = fields.first?.first else { return nil }
        isZombie = state == UInt8(ascii: "Z") || state == UInt8(ascii: "X")
        startTicks = fields.count > 19 ? UInt64(String(decoding: fields[19], as: UTF8.self)) : nil
    }
}

/// A short file of /proc, whose size is not known before it is read. Nil where it can't be read.
private func readProcessFile(_ path: RawPath) -> [UInt8]? {
    do throws(KedgeError) {
        return try FileDescriptor.open(path, .read).read(count: 4096, at: 0)
    } catch {
        return nil
    }
}
