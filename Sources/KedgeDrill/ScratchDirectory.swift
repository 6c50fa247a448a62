// The directory of one drill: made, marked, and removed with all that runs in it.
//
// Order: marker (durable, locked) → directory → … → processes ended → directory removed → marker removed. Whatever
// kills us on the way, the next drill finds the marker unlocked and goes on with the removal.

import Glibc
package import KedgeCore

/// A drill's scratch directory.
package final class ScratchDirectory {
    package let name: ScratchName
    private let parent: RawPath
    private var marker: ScratchMarker
    private let lock: LockedFile
    private let random: any RandomSource

    package var path: RawPath { parent.appending(name.directory) }
    package var data: RawPath { path.appending("data") }
    package var tablespaces: RawPath { path.appending("tablespaces") }
    package var extraFiles: RawPath { path.appending("extra") }
    package var configuration: RawPath { path.appending("configuration") }
    package var log: RawPath { path.appending("server.log") }
    package var socketDirectory: RawPath { marker.hasShortSocket ? name.shortSocketDirectory : path }

    /// The most bytes of a Unix socket's path: sun_path without its terminator.
    private static let socketPathLimit = 107
    /// `.s.PGSQL.PORT`: the directory is ours alone, so any port does.
    package static let port = 5432

    /// Makes a new one below `parent`, which exists.
    package init(
        below parent: RawPath, cluster: String, host: String, process: Int32, time: any TimeSource,
        random: any RandomSource
    ) throws(KedgeError) {
        name = ScratchName(random: random)
        self.parent = parent
        self.random = random
        let socket = parent.appending(name.directory).appending(".s.PGSQL.\(ScratchDirectory.port)")
        marker = ScratchMarker(
            id: name.id, cluster: cluster, host: host, process: process, created: time.now(),
            hasShortSocket: socket.bytes.count > ScratchDirectory.socketPathLimit)
        lock = try LockedFile.create(at: parent.appending(name.marker), marker.bytes)
        try ScratchDirectory.make(path)
        if marker.hasShortSocket { try ScratchDirectory.make(name.shortSocketDirectory) }
        try ScratchDirectory.make(configuration)
    }

    private static func make(_ path: RawPath) throws(KedgeError) {
        guard try Directory.create(at: path, mode: 0o700) else {
            throw KedgeError(
                .alreadyExists, "cannot create scratch directory \"\(path)\"", detail: "It is there already.",
                hint: "Its name is random: look for who made it.")
        }
    }

    /// Writes a file of the drill's own.
    package func write(_ text: String, to path: RawPath) throws(KedgeError) {
        let file = try FileDescriptor.open(path, [.write, .create, .truncate, .noFollow], mode: 0o600)
        try file.write(Array(text.utf8), at: 0)
    }

    /// Leaves everything in place, for later drills too.
    package func keep() throws(KedgeError) {
        marker.isKept = true
        _ = try DurableFile.write(
            marker.bytes, to: parent.appending(name.marker), mode: 0o600, replacing: true, random: random)
    }

    /// Ends what still runs in it, then removes it and the marker.
    package func remove(time: any TimeSource) throws(KedgeError) {
        try ScratchDirectory.clear(name, marker, below: parent, time: time)
        try lock.remove()
    }

    // MARK: - What earlier drills left

    /// A marker that was found, and what was done.
    package struct Found: Hashable, Sendable {
        package let name: ScratchName
        package let marker: ScratchMarker?
        package let action: ScratchAction
    }

    /// Removes what drills below `parent` left whose process is gone, and those that were kept where `includesKept`.
    package static func sweep(
        _ parent: RawPath, includesKept: Bool, time: any TimeSource
    ) throws(KedgeError) -> [Found] {
        var found: [Found] = []
        for entry in try Directory.entries(at: parent) where entry.kind == .regular {
            guard let name = ScratchName(marker: entry.name) else { continue }
            let path = parent.appending(entry.name)
            guard let lock = try LockedFile.take(path) else {
                if try FileSystem.exists(path) {
                    found.append(Found(name: name, marker: nil, action: .leave(.running)))
                }
                continue
            }
            let marker = ScratchMarker(parsing: try lock.read(limit: 4096))
            let action = ScratchAction.decide(
                name, marker: marker, isLocked: false,
                hasDirectory: try FileSystem.exists(parent.appending(name.directory)), includesKept: includesKept)
            if action == .remove, let marker { try clear(name, marker, below: parent, time: time) }
            if action == .remove || action == .removeMarker { try lock.remove() }
            found.append(Found(name: name, marker: marker, action: action))
        }
        return found
    }

    private static func clear(
        _ name: ScratchName, _ marker: ScratchMarker, below parent: RawPath, time: any TimeSource
    ) throws(KedgeError) {
        let path = parent.appending(name.directory)
        try ScratchProcesses(directory: path).end(time: time)
        var directories = [path]
        if marker.hasShortSocket { directories.append(name.shortSocketDirectory) }
        for directory in directories {
            do throws(KedgeError) {
                try Directory.removeTree(at: directory)
            } catch  where error.code == .notFound {
                // Its maker died before it got that far, or an earlier removal did.
            }
        }
    }
}

/// The processes that work in a scratch directory: the server's, and what it runs to fetch WAL.
struct ScratchProcesses {
    let directory: RawPath

    /// How long a server may take to end by itself once it was told to.
    private static let patienceNanoseconds: UInt64 = 10_000_000_000

    /// Ends them: first as PostgreSQL's immediate shutdown, then with SIGKILL. Throws `timeout` where that did not
    /// help.
    func end(time: any TimeSource) throws(KedgeError) {
        var processes = try present()
        guard !processes.isEmpty else { return }
        let start = time.monotonicNanoseconds()
        // The postmaster tells its children; archive-get takes SIGQUIT as anybody does.
        let ids = Set(processes.map(\.id))
        ProcessTable.signal(processes.filter { !ids.contains($0.parent) }, SIGQUIT, where: isOurs)
        while !processes.isEmpty {
            let elapsed = time.monotonicNanoseconds() - start
            if elapsed > 3 * ScratchProcesses.patienceNanoseconds {
                throw KedgeError(
                    .timeout, "could not end the processes in scratch directory \"\(directory)\"",
                    detail: "Process \(processes.map { String($0.id) }.joined(separator: ", ")) is still there.",
                    hint: "End it by hand; the next drill then removes the directory.")
            }
            if elapsed > ScratchProcesses.patienceNanoseconds {
                ProcessTable.signal(processes, SIGKILL, where: isOurs)
            } else if elapsed > 1_000_000_000 {
                // What has lost its parent.
                let ids = Set(processes.map(\.id))
                ProcessTable.signal(processes.filter { !ids.contains($0.parent) }, SIGQUIT, where: isOurs)
            }
            time.sleep(nanoseconds: 20_000_000)
            processes = try present()
        }
    }

    private func present() throws(KedgeError) -> [ProcessEntry] { try ProcessTable.entries().filter(isOurs) }

    /// Only what a drill starts there: somebody's shell that stands in the directory is not ours. The shell that runs
    /// restore_command ends with its child.
    private func isOurs(_ process: ProcessEntry) -> Bool {
        guard let working = process.workingDirectory, let program = process.program,
            program == "postgres" || program == ProcessTable.ownProgram
        else { return false }
        return working == directory || working.bytes.starts(with: directory.bytes + [0x2F])
    }
}
