// What only a local store can get wrong: unmounted disks, crash leftovers, modes, names that are no objects.
import Glibc
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite struct LocalStoreTests {
    private let directory: TemporaryDirectory
    private let random = SeededRandom(seed: 7)

    init() throws { directory = try TemporaryDirectory() }

    private func store(marker: ObjectName? = LocalStore.repositoryMarker) throws -> LocalStore {
        try LocalStore(at: directory("repo"), marker: marker, random: random)
    }

    private func repository() throws -> LocalStore {
        try LocalStore.createRoot(at: directory("repo"))
        let store = try store()
        #expect(try store.put("kedge.json", ObjectBody([1]), .createOnly) == .created)
        return store
    }

    private func files(_ path: String) throws -> [RawPath] {
        try Directory.entries(at: RawPath(directory(path))).map(\.name)
    }

    @Test("a missing repository directory is unavailable, never an empty repository")
    func missingRoot() {
        let error = #expect(throws: KedgeError.self) { _ = try store() }
        #expect(error?.code == .repositoryUnavailable)
        #expect(error?.message == "could not open repository directory \"\(directory("repo"))\"")
    }

    @Test("an empty mount point is unavailable for reading, listing and writing; only the marker is absent")
    func unmounted() throws {
        try LocalStore.createRoot(at: directory("repo"))
        let store = try store()
        #expect(try store.status(of: "kedge.json") == nil)
        try expectUnavailable(store)
        #expect(try files("repo").isEmpty)
    }

    @Test("a root that is removed while it is in use is unavailable")
    func vanishedRoot() throws {
        let store = try repository()
        #expect(try store.status(of: "a/b") == nil)
        try FileSystem.removeFile(at: RawPath(directory("repo/kedge.json")))
        try FileSystem.removeDirectory(at: RawPath(directory("repo")))
        try expectUnavailable(store)
        #expect(throws: KedgeError.self) { try store.status(of: "kedge.json") }
        // A new directory of that name is not the repository that was opened.
        try LocalStore.createRoot(at: directory("repo"))
        try expectUnavailable(store)
    }

    private func expectUnavailable(_ store: LocalStore) throws {
        let calls: [() throws -> Void] = [
            { _ = try store.status(of: "a/b") }, { _ = try store.readPrefix("a/b", limit: 1) },
            { _ = try store.read("a/b", range: 0..<1) }, { try store.makeDurable("a/b") },
            { _ = try store.put("a/b", ObjectBody([1]), .createOnly) },
            { _ = try store.put("a/b", ObjectBody([1]), .replace) },
            { _ = try store.beginUpload("a/b", expectedBytes: 1) },
            { _ = try store.list(below: nil, after: nil, limit: 1) },
            { _ = try store.list(below: "a", after: nil, limit: 1) },
            { _ = try store.listDirectories(below: "a", after: nil, limit: 1) },
            { _ = try store.remove(["a/b"]) },
            { _ = try store.removeAbandonedWrites(before: Timestamp(microseconds: 0)) },
        ]
        for (index, call) in calls.enumerated() {
            let error = #expect(throws: KedgeError.self) { try call() }
            #expect(error?.code == .repositoryUnavailable, "call \(index)")
            #expect(error?.hint?.isEmpty == false)
        }
    }

    @Test("what cannot be looked at is an error, never absent", .enabled(if: getuid() != 0, "root may look anywhere"))
    func permission() throws {
        let store = try repository()
        _ = try store.put("a/b", ObjectBody([1]), .createOnly)
        chmod(directory("repo/a"), 0)
        let error = #expect(throws: KedgeError.self) { try store.status(of: "a/b") }
        chmod(directory("repo/a"), 0o700)
        #expect(error?.code == .permission)
    }

    @Test("a component of the way that is a file is an error, never absent")
    func fileOnTheWay() throws {
        let store = try repository()
        _ = try store.put("a", ObjectBody([1]), .createOnly)
        let error = #expect(throws: KedgeError.self) { try store.status(of: "a/b") }
        #expect(error?.code == .inputOutput)
    }

    @Test("files are 0640 and directories 0750, whatever the umask")
    func modes() throws {
        let store = try repository()
        _ = try store.put("a/b/c", ObjectBody([1]), .createOnly)
        #expect(try FileStatus(at: RawPath(directory("repo"))).mode == 0o750)
        #expect(try FileStatus(at: RawPath(directory("repo/a/b"))).mode == 0o750)
        #expect(try FileStatus(at: RawPath(directory("repo/a/b/c"))).mode == 0o640)
    }

    @Test("a directory whose maker died before syncing it is made durable by the next writer or reader of the way")
    func unsyncedDirectories() throws {
        let store = try repository()
        // The state that a crash leaves: directories that still carry the mark of being new.
        for path in ["repo/a", "repo/a/b"] {
            _ = try Directory.create(at: RawPath(directory(path)), mode: 0o1700)
        }
        _ = try store.put("a/b/c", ObjectBody([1]), .createOnly)
        #expect(try FileStatus(at: RawPath(directory("repo/a"))).mode == 0o750)
        #expect(try FileStatus(at: RawPath(directory("repo/a/b"))).mode == 0o750)

        chmod(directory("repo/a/b"), 0o1700)
        try store.makeDurable("a/b/c")
        #expect(try FileStatus(at: RawPath(directory("repo/a/b"))).mode == 0o750)
        // What an administrator chose stays.
        chmod(directory("repo/a/b"), 0o770)
        _ = try store.put("a/b/d", ObjectBody([1]), .createOnly)
        #expect(try FileStatus(at: RawPath(directory("repo/a/b"))).mode == 0o770)
    }

    @Test("what a crash leaves is not listed, and is removed once it is old")
    func leftovers() throws {
        let store = try repository()
        _ = try store.put("pack/aa/1", ObjectBody([1]), .createOnly)
        var leftover: (any ObjectUpload)? = try store.beginUpload("pack/bb/2", expectedBytes: 10)
        try leftover?.append([1, 2, 3])
        #expect(try files("repo/pack/bb").count == 1)
        #expect(try FileStatus(at: RawPath(directory("repo/pack/bb"))).mode & 0o1000 != 0, "it is not marked as new")
        #expect(try store.list(below: "pack", after: nil, limit: 10).entries.map(\.name) == ["pack/aa/1"])
        #expect(try store.directories(below: "pack") == ["pack/aa"])
        #expect(try store.status(of: "pack/bb/2") == nil)

        let now = SystemTimeSource().now()
        #expect(try store.removeAbandonedWrites(before: now.adding(seconds: -3600)) == 0)
        #expect(try files("repo/pack/bb").count == 1)
        #expect(try store.removeAbandonedWrites(before: now.adding(seconds: 3600)) == 1)
        #expect(try files("repo/pack") == ["aa"])
        // The writer that was taken for dead must not believe that it stored something.
        #expect(throws: KedgeError.self) { try leftover?.finish() }
        leftover = nil
        #expect(try store.contains("pack/aa/1"))
    }

    @Test("names that no object can have are left out of listings, and are not removed")
    func foreignFiles() throws {
        let store = try repository()
        for name in ["lost+found", "a b", ".kedge~x"] {
            _ = try Directory.create(at: RawPath(directory("repo/\(name)")))
        }
        try FileSystem.createSymbolicLink(at: RawPath(directory("repo/dangling")), target: "nowhere")
        #expect(try store.list(below: nil, after: nil, limit: 10).entries.map(\.name) == ["kedge.json"])
        #expect(try store.directories(below: nil).isEmpty)
        #expect(try files("repo").count == 5)
    }

    @Test("directories that become empty are removed, and a writer makes them again")
    func emptyDirectories() throws {
        let store = try repository()
        let other = try self.store()
        for round in 0..<3 {
            #expect(try store.put("wal/1/0000/seg", ObjectBody([UInt8(round)]), .createOnly) == .created)
            #expect(try other.remove(["wal/1/0000/seg"]).isEmpty)
            #expect(try files("repo") == ["kedge.json"])
        }
    }

    @Test("writers and removers of one directory do not get into each other's way")
    func directoryRace() throws {
        let store = try repository()
        try parallelFor(count: 400, threads: 4, name: "race") {
        } body: { (_: inout Void, number) throws(KedgeError) in
            guard let name = ObjectName("deep/er/object\(number)") else { return }
            guard try store.put(name, ObjectBody([1]), .createOnly) == .created,
                try store.readAll(name, limit: 1) == [1]
            else { throw KedgeError(.defect, "object \(number) was not stored") }
            if let failure = try store.remove([name]).first { throw failure.error }
        }
        #expect(try files("repo") == ["kedge.json"])
    }

    @Test("large objects in uploads of uneven pieces come back as they were")
    func largeUpload() throws {
        let store = try repository()
        let upload = try store.beginUpload("pack/aa/1", expectedBytes: 40 << 20)
        var expected: [UInt8] = []
        for piece in 0..<30 {
            let bytes = [UInt8](repeating: UInt8(piece), count: 1_000_003 + piece)
            try upload.append(bytes)
            expected += bytes
        }
        #expect(try upload.finish() == .created)
        let isEqual = try store.readAll("pack/aa/1", limit: 40 << 20) == expected
        #expect(isEqual)
    }

    @Test("a pipe in an object's place is damage, and nobody waits for its writer")
    func pipe() throws {
        let store = try repository()
        #expect(mkfifo(directory("repo/pipe"), 0o600) == 0)
        for call in [
            { _ = try store.status(of: "pipe") }, { _ = try store.readPrefix("pipe", limit: 1) },
            { _ = try store.read("pipe", range: 0..<1) }, { try store.makeDurable("pipe") },
        ] as [() throws -> Void] {
            let error = #expect(throws: KedgeError.self) { try call() }
            #expect(error?.code == .damaged)
        }
    }
}
