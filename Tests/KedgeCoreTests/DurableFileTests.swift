// Publishing a file: whole or not at all, never replacing by accident, leftovers recognisable.
import KedgeCore
import KedgeTestSupport
import Testing

@Suite struct DurableFileTests {
    private let directory: TemporaryDirectory
    private let random = SeededRandom(seed: 1)

    init() throws { directory = try TemporaryDirectory() }

    private var names: [RawPath] {
        get throws { try Directory.entries(at: RawPath(directory.path)).map(\.name) }
    }

    private func contents(_ name: String) throws -> [UInt8] {
        try FileDescriptor.open(RawPath(directory(name)), [.read]).readAll(limit: 1000)
    }

    @Test("a file appears under its name with its mode, and nothing else is left")
    func created() throws {
        let outcome = try DurableFile.write([1, 2], to: RawPath(directory("f")), mode: 0o666, random: random)
        #expect(outcome == .created)
        #expect(try contents("f") == [1, 2])
        #expect(try FileStatus(at: RawPath(directory("f"))).mode == 0o666)
        #expect(try names == ["f"])
    }

    @Test("an existing file is not replaced unless asked, and no temporary file stays")
    func alreadyExists() throws {
        _ = try DurableFile.write([1], to: RawPath(directory("f")), random: random)
        #expect(try DurableFile.write([2], to: RawPath(directory("f")), random: random) == .alreadyExists)
        #expect(try contents("f") == [1])
        #expect(try DurableFile.write([3], to: RawPath(directory("f")), replacing: true, random: random) == .created)
        #expect(try contents("f") == [3])
        #expect(try names == ["f"])
    }

    @Test("before it is published a file has only a temporary name, and when it is given up none")
    func givenUp() throws {
        do {
            let opened = try FileDescriptor.open(RawPath(directory.path), [.read, .directory])
            let file = try DurableFile(in: opened, mode: 0o600, random: random)
            try file.file.write([1], at: 0)
            #expect(try names.map(DurableFile.isTemporary) == [true])
        }
        #expect(try names == [])
        #expect(!DurableFile.isTemporary("000000010000000A00000042"))
    }

    @Test("of many threads that publish one name exactly one succeeds, and its contents are there")
    func race() throws {
        let path = RawPath(directory("f"))
        let winners = Monitor([UInt8]())
        let random = random
        try parallelFor(count: 32, threads: 8, name: "race") {
            ()
        } body: { (_: inout Void, number) throws(KedgeError) in
            if try DurableFile.write([UInt8(number)], to: path, random: random) == .created {
                winners.update { $0.append(UInt8(number)) }
            }
        }
        let won = winners.update { $0 }
        #expect(won.count == 1)
        #expect(try contents("f") == won)
        #expect(try names == ["f"])
    }
}
