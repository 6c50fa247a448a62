// The processes of this host, as /proc shows them: to find what works in a directory that is about to be removed.

import CSystem
import Glibc

/// A running process.
package struct ProcessEntry: Hashable, Sendable {
    package let id: Int32
    package let parent: Int32
    /// Nil where the kernel does not show it to us: another user's.
    package let workingDirectory: RawPath?
    /// The last component of the program's path; nil as above.
    package let program: RawPath?

    package init(id: Int32, parent: Int32, workingDirectory: RawPath?, program: RawPath?) {
        self.id = id
        self.parent = parent
        self.workingDirectory = workingDirectory
        self.program = program
    }
}

/// What can be learned of processes and done to them.
package enum ProcessTable {
    /// All processes but zombies. They come and go meanwhile.
    package static func entries() throws(KedgeError) -> [ProcessEntry] {
        var found: [ProcessEntry] = []
        for entry in try Directory.entries(at: "/proc") where entry.kind == .directory {
            guard let text = entry.name.text, let id = Int32(text), let process = entryOf(id) else { continue }
            found.append(process)
        }
        return found
    }

    /// Sends `signal` to each process of which `isWanted` still says so once it is certain that its number means it.
    package static func signal(
        _ processes: [ProcessEntry], _ signal: Int32, where isWanted: (ProcessEntry) -> Bool
    ) {
        for process in processes {
            let descriptor = csystem_process_descriptor(process.id)
            // It has ended.
            guard descriptor >= 0 else { continue }
            if let now = entryOf(process.id), isWanted(now) { _ = csystem_signal_process(descriptor, signal) }
            close(descriptor)
        }
    }

    /// The last component of our own program's path.
    package static let ownProgram: RawPath? = link("/proc/self/exe")?.lastComponent

    /// Nil for a process that has ended.
    private static func entryOf(_ id: Int32) -> ProcessEntry? {
        let directory = RawPath("/proc/\(id)")
        do throws(KedgeError) {
            let stat = try FileDescriptor.open(directory.appending("stat"), [.read]).read(count: 1024, at: 0)
            // "PID (NAME) STATE PARENT …"; the name may hold anything.
            guard let end = stat.lastIndex(of: UInt8(ascii: ")")) else { return nil }
            let fields = stat[(end + 1)...].split(separator: 0x20)
            guard fields.count > 1, fields[0] != [UInt8(ascii: "Z")],
                let parent = Int32(String(decoding: fields[1], as: UTF8.self))
            else { return nil }
            return ProcessEntry(
                id: id, parent: parent, workingDirectory: link(directory.appending("cwd")),
                program: link(directory.appending("exe"))?.lastComponent)
        } catch {
            return nil
        }
    }

    /// Where a link of /proc leads, without the mark that the kernel puts behind what was removed.
    private static func link(_ path: RawPath) -> RawPath? {
        do throws(KedgeError) {
            let target = try FileSystem.symbolicLinkTarget(at: path)
            let mark = Array(" (deleted)".utf8)
            return target.bytes.suffix(mark.count) == mark[...]
                ? RawPath(bytes: target.bytes.dropLast(mark.count)) : target
        } catch {
            return nil
        }
    }
}
