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

    @Test(
        "what root writes belongs to whom the repository belongs (needs root)", .enabled(if: FileSystem.ownUser == 0))
    func ownedByTheServersUser() throws {
        _ = try repository()
        let (user, group): (UInt32, UInt32) = (65_534, 65_533)
        try FileDescriptor.open(RawPath(directory("repo")), [.read, .directory]).setOwner(user: user, group: group)
        let store = try store()
        #expect(try store.put("key/1/a", ObjectBody([1]), .createOnly) == .created)
        #expect(try store.put("main/lease/backup", ObjectBody([1]), .createOnly) == .created)
        #expect(try store.put("main/lease/backup", ObjectBody([2]), .replace) == .created)
        let upload = try store.beginUpload("main/pack/00/x", expectedBytes: 1)
        try [UInt8](repeating: 7, count: 100).withBytes { (bytes) throws(KedgeError) in try upload.append(bytes) }
        #expect(try upload.finish() == .created)
        for name in [
            "key", "key/1", "key/1/a", "main", "main/lease", "main/lease/backup", "main/pack", "main/pack/00",
            "main/pack/00/x",
        ] {
            let status = try FileStatus(at: RawPath(directory("repo/" + name)))
            #expect(status.user == user && status.group == group, "\(name)")
            #expect(status.mode == (status.kind == .directory ? 0o750 : 0o640), "\(name)")
        }
    }

    /// Runs `body` as NFS lets root work: with the rights of another user, who may give nothing away.
    private func squashed(_ body: @escaping @Sendable () throws(KedgeError) -> Void) throws -> KedgeError? {
        let failure = Monitor<KedgeError?>(nil)
        try Thread(name: "squashed") {
            ServerUser.useFileRights()
            do throws(KedgeError) {
                try body()
            } catch {
                failure.update { $0 = error }
            }
        }.join()
        return failure.update { $0 }
    }

    @Test(
        "what root may not give away is stored only where whoever reads kedge.json can read it (needs root)",
        .enabled(if: FileSystem.ownUser == 0))
    func squashedRoot() throws {
        _ = try repository()
        let root = try FileDescriptor.open(RawPath(directory("repo")), [.read, .directory])
        let marker = try FileDescriptor.open(RawPath(directory("repo/kedge.json")), [.read])
        try root.setOwner(user: 65_534, group: 65_533)
        try root.setMode(0o777)
        let (path, random) = (directory.path, random)
        #expect(try squashed { () throws(KedgeError) in _ = try Directory.create(at: RawPath(path + "/own")) } == nil)
        let own = try FileStatus(at: RawPath(path + "/own"))
        #expect(own.user != 0 && own.user != 65_534)
        func put(_ name: ObjectName, _ large: ObjectName? = nil) throws -> KedgeError? {
            try squashed { () throws(KedgeError) in
                let store = try LocalStore(at: path + "/repo", random: random)
                _ = try store.put(name, ObjectBody([1]), .createOnly)
                guard let large else { return }
                let upload = try store.beginUpload(large, expectedBytes: 1)
                try upload.append([7])
                _ = try upload.finish()
            }
        }
        // User, group and mode of kedge.json; with root_squash it is the owner's.
        for (user, group, mode) in [
            (65_534, 65_533, 0o640), (own.user, 65_533, 0o640), (65_534, own.group, 0o640),
            (own.user, own.group, 0o644),
        ] as [(UInt32, UInt32, UInt32)] {
            try marker.setOwner(user: user, group: group)
            try marker.setMode(mode)
            for (name, refused) in [("a", "a"), ("key/1/a", "key")] as [(ObjectName, String)] {
                let error = try put(name)
                #expect(error?.code == .permission)
                #expect(
                    error?.message
                        == "could not store \"\(refused)\" in repository directory \"\(path)/repo\" as root")
                #expect(error?.hint?.hasPrefix("Run the command as that user: sudo -u '#65534' kedge ...") == true)
                // Not even a directory, which the owner could not write to.
                #expect(try files("repo") == ["kedge.json"])
            }
        }
        // With all_squash everything is one user's.
        try marker.setOwner(user: own.user, group: own.group)
        try marker.setMode(0o640)
        #expect(try put("key/1/a", "main/pack/00/a") == nil)
        for name in ["key", "key/1", "key/1/a", "main/pack/00/a"] {
            let status = try FileStatus(at: RawPath(directory("repo/" + name)))
            #expect(status.user == own.user && status.mode == (status.kind == .directory ? 0o750 : 0o640), "\(name)")
        }
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

    private func expectUnavailable(_ store: LocalStore, _ name: ObjectName = "a/b") throws {
        let calls: [() throws -> Void] = [
            { _ = try store.status(of: name) }, { _ = try store.readPrefix(name, limit: 1) },
            { _ = try store.read(name, range: 0..<1) }, { try store.makeDurable(name) },
            { _ = try store.put(name, ObjectBody([1]), .createOnly) },
            { _ = try store.put(name, ObjectBody([1]), .replace) },
            { _ = try store.beginUpload(name, expectedBytes: 1) },
            { _ = try store.list(below: nil, after: nil, limit: 1) },
            { _ = try store.list(below: name.parent, after: nil, limit: 1) },
            { _ = try store.listDirectories(below: name.parent, after: nil, limit: 1) },
            { if let failure = try store.remove([name]).first { throw failure.error } },
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
        // A file system's snapshots, whole repositories of their own.
        try Directory.createWithParents(at: RawPath(directory("repo/.snapshot")))
        try expectWritten("repo/.snapshot/kedge.json")
        #expect(try store.list(below: nil, after: nil, limit: 10).entries.map(\.name) == ["kedge.json"])
        #expect(try store.directories(below: nil).isEmpty)
        #expect(try files("repo").count == 5)
    }

    private func expectWritten(_ path: String) throws {
        let outcome = try DurableFile.write([1], to: RawPath(directory(path)), random: random)
        #expect(outcome == .created)
    }

    /// What takes the place of the directory repo/a, whose object "b" was stored before.
    enum Stand: CaseIterable {
        case link, danglingLink, linkToEmpty
    }

    @Test("behind a link nothing is absent, whether it dangles or leads somewhere", arguments: Stand.allCases)
    func linkOnTheWay(_ stand: Stand) throws {
        let store = try repository()
        _ = try store.put("a/b", ObjectBody([1]), .createOnly)
        _ = try store.put("c/a/b", ObjectBody([1]), .createOnly)
        for place in ["repo/a", "repo/c/a"] {
            let moved = RawPath(directory(place + "-moved").replacing("repo/", with: ""))
            try Directory.createWithParents(at: moved.parent)
            try FileSystem.rename(RawPath(directory(place)), to: moved)
            let empty = RawPath(directory("empty"))
            try Directory.createWithParents(at: empty)
            let target: RawPath = stand == .link ? moved : stand == .linkToEmpty ? empty : "nowhere"
            try FileSystem.createSymbolicLink(at: RawPath(directory(place)), target: target)
        }
        try expectUnavailable(store)
        for name in ["c/a/b", "c/a/x", "c/a/x/y"] as [ObjectName] { try expectUnavailable(store, name) }
        let error = #expect(throws: KedgeError.self) { try store.status(of: "c/a/x") }
        #expect(error?.message == "could not rely on \"c/a\" of repository directory \"\(directory("repo"))\"")
        #expect(error?.detail?.hasPrefix("It is a symbolic link.") == true)
        // Nothing was written or removed behind the links, and what lies beside them is as it was.
        #expect(try files("empty").isEmpty)
        if stand == .link { #expect(try files("a-moved") == ["b"] && files("c/a-moved") == ["b"]) }
        #expect(try store.status(of: "d/b") == nil)
        #expect(try store.status(of: "c/d") == nil)
    }

    @Test("a link or a directory in an object's place is an error, never absent")
    func noFile() throws {
        let store = try repository()
        for (name, target) in [("link", "../kedge.json"), ("dangling", "nowhere")] {
            _ = try store.put("a/b", ObjectBody([1]), .createOnly)
            try FileSystem.createSymbolicLink(at: RawPath(directory("repo/a/\(name)")), target: RawPath(target))
            let object = try #require(ObjectName("a/\(name)"))
            for call in [
                { _ = try store.status(of: object) }, { _ = try store.readPrefix(object, limit: 1) },
                { _ = try store.read(object, range: 0..<1) }, { try store.makeDurable(object) },
                { _ = try store.put(object, ObjectBody([1]), .createOnly) },
                { _ = try store.list(below: "a", after: nil, limit: 9) },
                { _ = try store.listDirectories(below: "a", after: nil, limit: 9) },
            ] as [() throws -> Void] {
                let error = #expect(throws: KedgeError.self) { try call() }
                #expect(error?.code == .repositoryUnavailable)
            }
            #expect(try store.remove(["a/b", object]).isEmpty)
        }
        _ = try store.put("d/e/f", ObjectBody([1]), .createOnly)
        for call in [
            { _ = try store.status(of: "d/e") }, { _ = try store.readPrefix("d/e", limit: 1) },
            { try store.makeDurable("d/e") }, { _ = try store.put("d/e", ObjectBody([1]), .createOnly) },
        ] as [() throws -> Void] {
            let error = #expect(throws: KedgeError.self) { try call() }
            #expect(error?.code == .damaged)
        }
    }

    @Test("a marker that is a link makes the whole repository unavailable")
    func linkedMarker() throws {
        let store = try repository()
        let marker = RawPath(directory("repo/kedge.json"))
        try FileSystem.rename(marker, to: RawPath(directory("moved.json")))
        try FileSystem.createSymbolicLink(at: marker, target: RawPath(directory("moved.json")))
        try expectUnavailable(store)
        #expect(throws: KedgeError.self) { try store.status(of: "kedge.json") }
    }

    @Test(
        "behind another file system nothing is absent, whether or not it holds something",
        .enabled(if: canMount, "mounting takes root"), arguments: [true, false])
    func mountOnTheWay(holdsSomething: Bool) throws {
        let store = try repository()
        _ = try store.put("a/b", ObjectBody([1]), .createOnly)
        _ = try store.put("c/d/e", ObjectBody([1]), .createOnly)
        // Another device, and a bind mount of the same one.
        try Directory.createWithParents(at: RawPath(directory("other")))
        if holdsSomething { try expectWritten("other/b") }
        let places = [directory("repo/a"), directory("repo/c/d")]
        #expect(mount("tmpfs", places[0], "tmpfs", 0, "size=64k") == 0)
        #expect(mount(directory("other"), places[1], "none", UInt(MS_BIND), nil) == 0)
        defer { for place in places { umount2(place, Int32(MNT_DETACH)) } }
        if holdsSomething { try expectWritten("repo/a/b") }
        try expectUnavailable(store)
        for name in ["c/d/e", "c/d/b", "c/d/x/y"] as [ObjectName] { try expectUnavailable(store, name) }
        #expect(try store.status(of: "c/x") == nil)
        #expect(try files("other").count == (holdsSomething ? 1 : 0))
    }

    /// Whether a file system can be mounted here: root in a container may not.
    private static let canMount: Bool = {
        guard getuid() == 0, let directory = try? TemporaryDirectory() else { return false }
        guard mount("tmpfs", directory.path, "tmpfs", 0, "size=64k") == 0 else { return false }
        return umount2(directory.path, Int32(MNT_DETACH)) == 0
    }()

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
