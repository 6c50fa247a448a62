// Files, directories and paths on a real file system: complete reads, errors that name the file, names of any bytes.
import Glibc
import KedgeCore
import KedgeTestSupport
import Testing

@Suite struct FileDescriptorTests {
    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    @Test("what is written at an offset is read back, and a read past the end is short (lesson 11)")
    func readAndWrite() throws {
        let file = try FileDescriptor.open(RawPath(directory("f")), [.read, .write, .create])
        try file.write([1, 2, 3], at: 2)
        #expect(try file.read(count: 100, at: 0) == [0, 0, 1, 2, 3])
        #expect(try file.read(count: 2, at: 3) == [2, 3])
        #expect(try file.read(count: 2, at: 99) == [])
        #expect(try file.status().sizeBytes == 5)
        try file.close()
    }

    @Test("an offset that the kernel cannot address is an error, not a trap")
    func hugeOffset() throws {
        let file = try FileDescriptor.open(RawPath(directory("f")), [.read, .write, .create])
        #expect(throws: KedgeError.self) { try file.read(count: 1, at: .max) }
        #expect(throws: KedgeError.self) { try file.write([1], at: .max) }
    }

    @Test(
        "a direct write is the same bytes, whatever is aligned and whether the file system can do it",
        arguments: [false, true])
    func direct(inMemory: Bool) throws {
        let directory = try TemporaryDirectory(inMemory: inMemory)
        let file = try FileDescriptor.open(RawPath(directory("f")), [.read, .write, .create])
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 4096)
        defer { memory.deallocate() }
        for index in memory.indices { memory[index] = UInt8(truncatingIfNeeded: index &* 31 >> 3) }
        var expected: [UInt8] = []
        // (offset in the file, start in the memory, count)
        for (offset, start, count) in [
            (0, 0, 16_384), (16_384, 0, 20_000), (36_384, 0, 8192), (8192, 4096, 4096), (4096, 17, 9000),
            (40_960, 0, 1),
            (45_056, 8192, 12_289),
        ] {
            let bytes = UnsafeRawBufferPointer(rebasing: memory[start..<start + count])
            try file.writeDirect(bytes, at: UInt64(offset))
            if expected.count < offset + count {
                expected += [UInt8](repeating: 0, count: offset + count - expected.count)
            }
            expected.replaceSubrange(offset..<offset + count, with: bytes)
            #expect(try file.read(count: 1 << 20, at: 0) == expected, "\(offset), \(start), \(count)")
        }
        // A read that is not aligned would fail were the file still open for direct reads only.
        #expect(try file.read(count: 3, at: 5) == Array(expected[5..<8]))
    }

    @Test("a file that room was made for is that long and zero, wherever it lies", arguments: [false, true])
    func allocate(inMemory: Bool) throws {
        let directory = try TemporaryDirectory(inMemory: inMemory)
        let file = try FileDescriptor.open(RawPath(directory("f")), [.read, .write, .create])
        for length in [0, 3_000_001] {
            try file.allocate(UInt64(length))
            #expect(try file.read(count: length + 1, at: 0) == [UInt8](repeating: 0, count: length))
        }
    }

    @Test("a direct write that the disk has no room for is told as any other")
    func directWithoutRoom() throws {
        let file = try FileDescriptor.open("/dev/full", [.write])
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 8192, alignment: 4096)
        defer { memory.deallocate() }
        memory.initializeMemory(as: UInt8.self, repeating: 1)
        let error = #expect(throws: KedgeError.self) {
            try file.writeDirect(UnsafeRawBufferPointer(memory), at: 0)
        }
        #expect(error?.code == .noSpace)
    }

    @Test("a missing file is not-found, and the message names it and the error number")
    func missing() throws {
        let error = #expect(throws: KedgeError.self) {
            _ = try FileDescriptor.open(RawPath(directory("gone")), [.read]).number
        }
        #expect(error?.code == .notFound)
        #expect(error?.message == "could not open file \"\(directory("gone"))\"")
        #expect(error?.detail == "The system said: No such file or directory (ENOENT).")
    }

    @Test(
        "an error number becomes the code that people react to",
        arguments: [
            (ENOENT, ErrorCode.notFound), (EACCES, .permission), (EPERM, .permission), (EROFS, .permission),
            (ENOSPC, .noSpace), (EDQUOT, .noSpace), (EIO, .inputOutput), (ENOTDIR, .inputOutput),
            (EMFILE, .inputOutput),
        ])
    func codes(_ number: Int32, _ code: ErrorCode) {
        #expect(systemError("write file", "/x", errno: number).code == code)
    }

    @Test("a full disk names the file system and its free bytes")
    func noSpace() throws {
        let error = systemError("write file", RawPath(directory("not/there/yet")), errno: ENOSPC)
        #expect(error.detail?.contains("No space left on device (ENOSPC). The file system at \"/") == true)
        #expect(error.detail?.contains("bytes free.") == true)
    }

    @Test("a path with a zero byte inside is refused")
    func zeroByte() {
        let error = #expect(throws: KedgeError.self) { _ = try FileStatus(at: RawPath(bytes: [0x61, 0, 0x62])) }
        #expect(error?.code == .unsafePath)
        #expect(error?.message == "cannot use path \"a\\x00b\"")
    }

    @Test("a directory lists names of any bytes in byte order, with their kinds")
    func listing() throws {
        let odd = RawPath(bytes: [0xFF, 0x0A, 0x22])
        _ = try FileDescriptor.open(RawPath(directory.path).appending(odd), [.write, .create]).number
        _ = try Directory.create(at: RawPath(directory("b")))
        try FileSystem.createSymbolicLink(at: RawPath(directory("a")), target: odd)
        let entries = try Directory.entries(at: RawPath(directory.path))
        #expect(entries.map(\.name) == ["a", "b", odd])
        #expect(entries.map(\.kind) == [.symbolicLink, .directory, .regular])
        #expect(try FileSystem.symbolicLinkTarget(at: RawPath(directory("a"))) == odd)
        #expect(odd.description == "\\xff\\x0a\"")
    }

    @Test("modes are what was asked for, whatever the umask")
    func modes() throws {
        let file = try FileDescriptor.open(RawPath(directory("f")), [.write, .create])
        try file.setMode(0o666)
        #expect(try file.status().mode == 0o666)
        #expect(try Directory.create(at: RawPath(directory("d")), mode: 0o777))
        #expect(try FileStatus(at: RawPath(directory("d"))).mode == 0o777)
        #expect(try !Directory.create(at: RawPath(directory("d")), mode: 0o700))
    }

    @Test("a file that was made anew has another identity than its predecessor")
    func birthTime() throws {
        let path = RawPath(directory("f"))
        func make() throws -> FileStatus {
            try FileDescriptor.open(path, [.write, .create, .exclusive]).status()
        }
        let first = try make()
        try FileSystem.removeFile(at: path)
        let second = try make()
        #expect(first.inode != second.inode || first.birthNanoseconds != second.birthNanoseconds)
    }

    @Test("parents are made as they are needed")
    func parents() throws {
        try Directory.createWithParents(at: RawPath(directory("a/b/c")))
        #expect(try FileStatus(at: RawPath(directory("a/b/c"))).kind == .directory)
        try Directory.createWithParents(at: RawPath(directory("a/b/c")))
        _ = try FileDescriptor.open(RawPath(directory("file")), [.write, .create]).number
        #expect(throws: KedgeError.self) { try Directory.createWithParents(at: RawPath(directory("file/x"))) }
    }

    @Test("a path knows its parent and its last component")
    func paths() {
        #expect(RawPath("/a/b").parent == "/a" && RawPath("/a").parent == "/" && RawPath("a").parent == ".")
        #expect(RawPath("/a/b").lastComponent == "b" && RawPath("b").lastComponent == "b")
        #expect(RawPath("/").appending("b") == "/b" && RawPath("/a").appending("b") == "/a/b")
    }
}
