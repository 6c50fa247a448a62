// That writing files survives the failure of every single system call, on file systems with and without the features
// that it likes best: whole or not at all, never over another file, nothing left behind, and a full disk is named.
import Glibc
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite(.enabled(if: SystemCallFaults.isAvailable, "needs seccomp(2) with user notification"))
struct FileFaultTests {
    private let directory: TemporaryDirectory
    private let random = SeededRandom(seed: testSeed())

    init() throws { directory = try TemporaryDirectory() }

    private func names(_ path: String) throws -> [RawPath] {
        try Directory.entries(at: RawPath(directory(path))).map(\.name)
    }

    private func contents(_ path: String) throws -> [UInt8] {
        try FileDescriptor.open(RawPath(directory(path)), [.read]).readAll(limit: 1 << 20)
    }

    // MARK: - Features that a file system may lack

    @Test(
        "without RENAME_NOREPLACE a file is published by a link, and still never over another",
        arguments: [EINVAL, ENOSYS, EOPNOTSUPP])
    func publishByLink(_ number: Int32) throws {
        let (path, random) = (RawPath(directory("f")), random)
        let publish = { @Sendable () throws(KedgeError) in
            (
                try DurableFile.write([1, 2], to: path, mode: 0o640, random: random),
                try DurableFile.write([3], to: path, random: random)
            )
        }
        let run = try SystemCallFaults.run({ $0.kind == .renameWithoutReplacing ? number : nil }, publish)
        let outcome = try run.result.get()
        #expect(outcome == (.created, .alreadyExists))
        #expect(try contents("f") == [1, 2])
        #expect(try FileStatus(at: path).linkCount == 1)
        #expect(try names("") == ["f"])
        #expect(run.calls.contains { $0.kind == .link })
        // The link is made of what is durable, and is made durable itself.
        let order = run.calls.map(\.kind)
        let link = try #require(order.firstIndex(of: .link))
        #expect(order[..<link].contains(.sync) && order[link...].contains(.sync))
    }

    @Test("without RENAME_NOREPLACE exactly one of many writers of one name succeeds")
    func raceByLink() throws {
        let (path, random) = (RawPath(directory("f")), random)
        let run = try SystemCallFaults.run({ $0.kind == .renameWithoutReplacing ? EINVAL : nil }) {
            () throws(KedgeError) in
            let winners = Monitor([UInt8]())
            try parallelFor(count: 16, threads: 4, name: "race") {
                ()
            } body: { (_: inout Void, number) throws(KedgeError) in
                if try DurableFile.write([UInt8(number)], to: path, random: random) == .created {
                    winners.update { $0.append(UInt8(number)) }
                }
            }
            return winners.update { $0 }
        }
        let winners = try run.result.get()
        #expect(winners.count == 1)
        #expect(try contents("f") == winners)
        #expect(try names("") == ["f"])
    }

    @Test("without unnamed files a scratch file works, and nothing of it is left", arguments: [EOPNOTSUPP, EISDIR])
    func namedScratchFile(_ number: Int32) throws {
        let (path, random) = (RawPath(directory.path), random)
        let run = try SystemCallFaults.run({ $0.kind == .createUnnamed ? number : nil }) { () throws(KedgeError) in
            let file = try ScratchFile(in: path, random: random)
            try file.append([1, 2, 3])
            try file.overwrite([9], at: 1)
            let entries = try Directory.entries(at: path).count
            return (try file.read(count: 3, at: 0), entries)
        }
        let (bytes, entries) = try run.result.get()
        #expect(bytes == [1, 9, 3])
        #expect(entries == 0)
        #expect(run.faultCount == 1)
    }

    // MARK: - Every call fails once

    @Test(
        "an object is whole or absent whichever system call fails, and nothing else is left", arguments: [ENOSPC, EIO])
    func objectSweep(_ number: Int32) throws {
        var points = 0
        for point in 1... {
            let place = "repository-\(point)"
            try LocalStore.createRoot(at: directory(place))
            let path = directory(place)
            let random = random
            let body = (0..<3).map { [UInt8](repeating: UInt8($0), count: 100_000) }
            let run = try SystemCallFaults.run({ $0.number == point ? number : nil }) { () throws(KedgeError) in
                let store = try LocalStore(at: path, marker: nil, random: random)
                return try store.put("wal/a/1", ObjectBody(body), .createOnly)
            }
            guard run.faultCount > 0 else {
                #expect(try run.result.get() == .created)
                break
            }
            points += 1
            let call = run.calls[point - 1]
            let store = try LocalStore(at: path, marker: nil, random: random)
            let size = try store.status(of: "wal/a/1")?.sizeBytes
            #expect(size == nil || size == 300_000, "\(call)")
            if case .failure(let error) = run.result {
                #expect(error.code == (number == ENOSPC ? .noSpace : .inputOutput), "\(call): \(error)")
                if number == ENOSPC { expectRoomTold(error, needing: 300_000, call) }
            } else {
                // What only cleans up may fail: the object is there.
                #expect(size == 300_000, "\(call)")
            }
            // A file that could not be removed stays under a name that nothing takes for an object.
            if call.kind != .unlink { try expectNoLeftovers(place, call) }
            let again = try store.put("wal/a/1", ObjectBody(body), .createOnly)
            #expect(again == (size == nil ? .created : .alreadyExists), "\(call)")
        }
        #expect(points >= 10)
        print("object sweep, error \(number): \(points) points")
    }

    @Test("a large object is whole or absent whichever system call fails", arguments: [ENOSPC, EIO])
    func uploadSweep(_ number: Int32) throws {
        var points = 0
        for point in 1... {
            let place = "repository-\(point)"
            try LocalStore.createRoot(at: directory(place))
            let (path, random) = (directory(place), random)
            let run = try SystemCallFaults.run({ $0.number == point ? number : nil }) { () throws(KedgeError) in
                let store = try LocalStore(at: path, marker: nil, random: random)
                let upload = try store.beginUpload("pack/a", expectedBytes: 0)
                for byte in 0..<4 { try upload.append([UInt8](repeating: UInt8(byte), count: 5 << 20)) }
                return try upload.finish()
            }
            guard run.faultCount > 0 else { break }
            points += 1
            let call = run.calls[point - 1]
            let store = try LocalStore(at: path, marker: nil, random: random)
            let size = try store.status(of: "pack/a")?.sizeBytes
            #expect(size == nil || size == 20 << 20, "\(call)")
            if case .failure(let error) = run.result {
                #expect(error.code == (number == ENOSPC ? .noSpace : .inputOutput), "\(call): \(error)")
                if call.kind == .write {
                    #expect(error.message.hasPrefix("could not store object \"pack/a\" in "), "\(call): \(error)")
                }
            }
            if call.kind != .unlink { try expectNoLeftovers(place, call) }
            _ = try Subprocess(["rm", "-rf", path]).run()
        }
        #expect(points >= 8)
        print("upload sweep, error \(number): \(points) points")
    }

    private func expectRoomTold(_ error: KedgeError, needing bytes: Int, _ call: SystemCall) {
        #expect(error.message.hasPrefix("could not store object \"wal/a/1\" in repository directory \""), "\(call)")
        let detail = error.detail ?? ""
        #expect(detail.hasPrefix("It needs \(bytes) bytes. The file system at \"/"), "\(call): \(detail)")
        #expect(detail.contains("bytes free"), "\(call): \(detail)")
        #expect(error.hint?.isEmpty == false, "\(call)")
    }

    private func expectNoLeftovers(_ place: String, _ call: SystemCall) throws {
        let found = try Subprocess(["find", directory(place), "-name", ".kedge~*"]).run().outputText
        #expect(found == "", "\(call)")
    }

    @Test("a full work directory is named together with the setting that moves it")
    func fullWorkDirectory() throws {
        let (path, random) = (RawPath(directory.path), random)
        for kind in [SystemCall.Kind.createUnnamed, .write] {
            let run = try SystemCallFaults.run({ $0.kind == kind ? ENOSPC : nil }) { () throws(KedgeError) in
                let file = try ScratchFile(in: path, random: random)
                try file.append([UInt8](repeating: 7, count: 1 << 20))
            }
            let error = #expect(throws: KedgeError.self) { try run.result.get() }
            #expect(error?.code == .noSpace)
            #expect(error?.hint?.contains("The setting work-directory names another place for it.") == true)
            #expect(error?.detail?.contains("bytes free") == true)
        }
        #expect(try names("") == [])
    }
}
