// That a restore counts its needs for each file system, in bytes and in inodes, and says exactly what is missing.
import KedgeCore
import KedgeRestore
import KedgeTestSupport
import Testing

@Suite struct RestoreSpaceTests {
    private func need(_ path: RawPath, bytes: UInt64, inodes: UInt64 = 1) -> RestoreSpace.Need {
        RestoreSpace.Need(path: path, bytes: bytes, inodes: inodes, hint: "go elsewhere.")
    }

    /// Paths below /a are on a file system of 100 bytes and 10 inodes, all others on one of 50 without such a limit.
    private func space(_ path: RawPath) -> FileSystemSpace {
        path.bytes.starts(with: "/a".utf8)
            ? FileSystemSpace(mountPoint: "/a", totalBytes: 1000, freeBytes: 100, totalInodes: 20, freeInodes: 10)
            : FileSystemSpace(mountPoint: "/", totalBytes: 1000, freeBytes: 50, totalInodes: 0, freeInodes: 0)
    }

    private func check(_ needs: [RestoreSpace.Need]) throws { try RestoreSpace.check(needs) { space($0) } }

    @Test("what fits exactly is accepted, on each file system by itself")
    func fits() throws {
        try check([need("/a/data", bytes: 60, inodes: 9), need("/b", bytes: 50, inodes: 1000), need("/a/x", bytes: 40)])
    }

    @Test("needs on one file system add up, and the error says what is missing where")
    func addsUp() {
        let needs = [need("/a/data", bytes: 60), need("/b", bytes: 50), need("/a/space", bytes: 41)]
        let error = #expect(throws: KedgeError.self) { try check(needs) }
        #expect(
            error?.description == """
                cannot restore into "/a/space": the file system has not enough room
                code: no-space
                detail: The file system at "/a" has 100 bytes free, and 101 are needed: 1 are missing.
                hint: Free space there or make it larger, or go elsewhere.  Nothing was written.
                """)
    }

    @Test("inodes run out like bytes do")
    func inodes() {
        let error = #expect(throws: KedgeError.self) { try check([need("/a/data", bytes: 1, inodes: 11)]) }
        #expect(
            error?.detail
                == "The file system at \"/a\" has 10 inodes (files and directories) free, and 11 are needed: 1 are "
                + "missing.")
    }

    @Test("sums beyond 64 bits are refused, not wrapped round")
    func overflow() {
        let needs = [need("/a/data", bytes: 1), need("/a/space", bytes: .max)]
        #expect(throws: KedgeError.self) { try check(needs) }
    }

    @Test("a need is refused exactly when the sums of its file system exceed what is free (generated)")
    func generated() {
        let random = SeededRandom(seed: testSeed())
        for _ in 0..<500 {
            let needs = (0..<(1 + random.next(below: 4))).map { _ in
                need(
                    random.next(below: 2) == 0 ? "/a/x" : "/b/y", bytes: UInt64(random.next(below: 60)),
                    inodes: UInt64(random.next(below: 6)))
            }
            let onA = needs.filter { $0.path == "/a/x" }
            let fits =
                onA.reduce(0) { $0 + $1.bytes } <= 100 && onA.reduce(0) { $0 + $1.inodes } <= 10
                && needs.filter { $0.path != "/a/x" }.reduce(0) { $0 + $1.bytes } <= 50
            do {
                try check(needs)
                #expect(fits, "\(needs)")
            } catch {
                #expect(!fits, "\(needs)")
            }
        }
    }
}
