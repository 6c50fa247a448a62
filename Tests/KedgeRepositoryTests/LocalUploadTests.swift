// What is written by a thread of the upload's own: the same bytes whatever the lengths, and no failure gets lost on the
// way from that thread.
import Glibc
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite struct LocalUploadTests {
    /// As in LocalUpload.swift: two of them are filled in turns.
    private static let window = 2 << 20

    /// No two words of it are the same, so nothing can lie in another's place.
    private static let noise = [UInt8](unsafeUninitializedCapacity: 4 * window) { bytes, count in
        let words = UnsafeMutableRawBufferPointer(bytes).bindMemory(to: UInt64.self)
        for index in words.indices { words[index] = UInt64(index) &* 0x9E37_79B9_7F4A_7C15 }
        count = bytes.count
    }

    private let random = SeededRandom(seed: testSeed())

    private func store(in directory: TemporaryDirectory) throws -> LocalStore {
        try LocalStore.createRoot(at: directory("repo"))
        return try LocalStore(at: directory("repo"), marker: nil, random: random)
    }

    private func leftovers(in directory: TemporaryDirectory) throws -> String {
        try Subprocess(["find", directory("repo"), "-name", ".kedge~*"]).run().outputText
    }

    @Test("an upload is the bytes that were appended, whatever its length and its pieces", arguments: [false, true])
    func lengths(inMemory: Bool) throws {
        let directory = try TemporaryDirectory(inMemory: inMemory)
        let store = try store(in: directory)
        let window = LocalUploadTests.window
        for length in [
            0, 1, 4095, 4096, 4097, window - 1, window, window + 1, window + 4096, 2 * window - 1, 2 * window,
            2 * window + 1, 3 * window, 3 * window + 4097,
        ] {
            let body = Array(LocalUploadTests.noise[..<length])
            let name = try #require(ObjectName("pack/aa/\(length)"))
            let upload = try store.beginUpload(name, expectedBytes: 0)
            var done = 0
            while done < length {
                let count = min(length - done, 1 + Int(random.next() % UInt64(window + window / 2)))
                try upload.append(Array(body[done..<done + count]))
                done += count
            }
            #expect(try upload.finish() == .created)
            let isEqual = try store.readAll(name, limit: length + 1) == body
            #expect(isEqual, "\(length) bytes")
        }
        #expect(try leftovers(in: directory) == "")
    }

    @Test("an upload that is given up or dropped while it is written leaves nothing", arguments: [1, 2, 3])
    func givenUp(windows: Int) throws {
        let directory = try TemporaryDirectory()
        let store = try store(in: directory)
        for isDropped in [false, true] {
            let upload = try store.beginUpload("pack/aa/1", expectedBytes: 0)
            try upload.append([UInt8](repeating: 1, count: windows * LocalUploadTests.window + 1))
            if !isDropped { upload.abort() }
        }
        #expect(try leftovers(in: directory) == "")
        #expect(try store.status(of: "pack/aa/1") == nil)
    }

    @Test(
        "where direct writes are refused the bytes are the same",
        .enabled(if: SystemCallFaults.isAvailable, "needs seccomp(2) with user notification"),
        arguments: [EINVAL, EOPNOTSUPP])
    func refused(_ number: Int32) throws {
        let directory = try TemporaryDirectory()
        let store = try store(in: directory)
        let body = Array(LocalUploadTests.noise[..<(2 * LocalUploadTests.window + 8192)])
        var isRefused = false
        let run = try SystemCallFaults.run(
            // Each window is tried once past the page cache, then goes through it.
            { call in
                guard call.kind == .write else { return nil }
                isRefused.toggle()
                return isRefused ? number : nil
            }
        ) { () throws(KedgeError) in
            let upload = try store.beginUpload("pack/aa/1", expectedBytes: 0)
            try upload.append(body)
            return try upload.finish()
        }
        #expect(try run.result.get() == .created)
        #expect(run.faultCount == 3)
        let isEqual = try store.readAll("pack/aa/1", limit: body.count) == body
        #expect(isEqual)
    }

    @Test(
        "a write that fails names the object, and neither a later append nor the end passes over it",
        .enabled(if: SystemCallFaults.isAvailable, "needs seccomp(2) with user notification"),
        arguments: [(EIO, ErrorCode.inputOutput), (ENOSPC, .noSpace)])
    func failure(_ number: Int32, _ code: ErrorCode) throws {
        // With one window full, and room for what comes, only the end can tell; with two the append has waited.
        for windows in [1, 2, 3] {
            let directory = try TemporaryDirectory()
            let store = try store(in: directory)
            var hasFailed = false
            // Only the first write fails: those after it would succeed.
            let run = try SystemCallFaults.run(
                { call in
                    guard call.kind == .write, !hasFailed else { return nil }
                    hasFailed = true
                    return number
                }
            ) { () throws(KedgeError) in
                let upload = try store.beginUpload("pack/aa/1", expectedBytes: 0)
                var errors: [KedgeError] = []
                for call in 0...3 {
                    do throws(KedgeError) {
                        if call < 2 {
                            let count = call == 0 ? windows * LocalUploadTests.window + 1 : 1
                            try upload.append([UInt8](repeating: 1, count: count))
                        } else {
                            _ = try upload.finish()
                        }
                    } catch {
                        errors.append(error)
                    }
                }
                return errors
            }
            let errors = try run.result.get()
            #expect(errors.count == (windows == 1 ? 2 : 4), "\(windows) windows: \(errors)")
            for error in errors {
                #expect(error.code == code, "\(windows) windows")
                #expect(
                    error.message
                        == "could not store object \"pack/aa/1\" in repository directory \"\(directory("repo"))\"")
            }
            #expect(run.faultCount == 1)
            #expect(!run.calls.contains { $0.kind == .rename || $0.kind == .renameWithoutReplacing })
            #expect(try store.status(of: "pack/aa/1") == nil)
            #expect(try leftovers(in: directory) == "")
        }
    }
}
