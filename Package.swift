// swift-tools-version: 6.2
// Targets and the imports each may use: the arrows of docs/style.md section 1 point down, never up.
// `scripts/tidy.sh` holds every `import` in the tree against this table.
import PackageDescription

let strict: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .treatAllWarnings(as: .error),
]

/// What ends up in the program: without regular expressions, which every start would pay for (docs/decisions/0001).
let shipped: [SwiftSetting] =
    strict + [.unsafeFlags(["-Xfrontend", "-disable-implicit-string-processing-module-import"])]

/// A Swift module of the product.
func module(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .target(name: name, dependencies: dependencies, exclude: ["README.md"], swiftSettings: shipped)
}

/// The one Swift module that owns the handles of one C library.
func owner(_ name: String, of library: Target.Dependency) -> Target {
    .target(name: name, dependencies: [library, "KedgeCore"], swiftSettings: shipped)
}

/// A test target that mirrors one module.
func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(name: name, dependencies: dependencies + ["KedgeTestSupport"], swiftSettings: strict)
}

let package = Package(
    name: "kedge",
    products: [.executable(name: "kedge", targets: ["kedge"])],
    targets: [
        // The command. Its main runs on the main thread and need not ask whether it does, which takes the runtime of tasks.
        .executableTarget(
            name: "kedge", dependencies: ["KedgeCommand", "KedgeCore"],
            swiftSettings: shipped + [.unsafeFlags(["-Xfrontend", "-disable-dynamic-actor-isolation"])]),
        module(
            "KedgeCommand",
            [
                "KedgeSetup", "KedgeVerify", "KedgeDrill", "KedgeArchive", "KedgeBackup", "KedgeRestore",
                "KedgeCatalog", "KedgeRepository", "KedgePostgres", "KedgeCodec", "KedgeCore",
            ]),
        // Use cases
        module(
            "KedgeSetup",
            [
                "KedgeArchive", "KedgeBackup", "KedgeRestore", "KedgeCatalog", "KedgeRepository", "KedgePostgres",
                "KedgeCodec", "KedgeCore",
            ]),
        module(
            "KedgeVerify",
            [
                "KedgeBackup", "KedgeRestore", "KedgeCatalog", "KedgeRepository", "KedgePostgres", "KedgeCodec",
                "KedgeCore",
            ]),
        module(
            "KedgeDrill",
            ["KedgeRestore", "KedgeCatalog", "KedgeRepository", "KedgePostgres", "KedgeCodec", "KedgeCore"]),
        module("KedgeArchive", ["KedgeCatalog", "KedgeRepository", "KedgePostgres", "KedgeCodec", "KedgeCore"]),
        module("KedgeBackup", ["KedgeCatalog", "KedgeRepository", "KedgePostgres", "KedgeCodec", "KedgeCore"]),
        module("KedgeRestore", ["KedgeCatalog", "KedgeRepository", "KedgePostgres", "KedgeCodec", "KedgeCore"]),
        // Domain and storage
        module("KedgeCatalog", ["KedgeRepository", "KedgePostgres", "KedgeCodec", "KedgeCore"]),
        module("KedgeRepository", ["KedgeCodec", "KedgeCore", "Curl", "Expat"]),
        module("KedgePostgres", ["KedgeCodec", "KedgeCore", "Libpq"]),
        module("KedgeCodec", ["KedgeCore", "OpenSSL", "Zlib", "LZ4", "Zstd", "XXHash"]),
        module("KedgeCore", ["CSystem", "CArithmetic"]),
        // Owners of C handles
        owner("Libpq", of: "CLibpq"),
        owner("Curl", of: "CCurl"),
        owner("Expat", of: "CExpat"),
        owner("OpenSSL", of: "COpenSSL"),
        owner("Zlib", of: "CZlib"),
        owner("LZ4", of: "CLZ4"),
        owner("Zstd", of: "CZstd"),
        .target(name: "XXHash", dependencies: ["CXXHash", "CArithmetic", "KedgeCore"], swiftSettings: shipped),
        // C
        .systemLibrary(name: "COpenSSL", providers: [.apt(["libssl-dev"])]),
        .systemLibrary(name: "CZlib", providers: [.apt(["zlib1g-dev"])]),
        .systemLibrary(name: "CLZ4", providers: [.apt(["liblz4-dev"])]),
        .systemLibrary(name: "CZstd", providers: [.apt(["libzstd-dev"])]),
        .systemLibrary(name: "CXXHash", providers: [.apt(["libxxhash-dev"])]),
        .systemLibrary(name: "CExpat", providers: [.apt(["libexpat1-dev"])]),
        .target(name: "CLibpq"),
        .target(name: "CCurl"),
        .target(name: "CSystem"),
        .target(name: "CArithmetic", cSettings: [.unsafeFlags(["-O2"])]),
        // What scripts/bench.sh holds kedge against
        .executableTarget(
            name: "codec-only", dependencies: ["KedgePostgres", "KedgeCodec", "KedgeCore"], path: "Benchmarks/CodecOnly",
            swiftSettings: shipped),
        // Tests
        .target(name: "CTestSupport", path: "Tests/CTestSupport"),
        .target(
            name: "KedgeTestSupport",
            dependencies: [
                "KedgeCatalog", "KedgeRepository", "KedgePostgres", "KedgeCodec", "KedgeCore", "CTestSupport",
            ],
            path: "Tests/KedgeTestSupport", exclude: ["README.md"], swiftSettings: strict),
        tests(
            "KedgeArchiveTests",
            ["KedgeArchive", "KedgeCatalog", "KedgeRepository", "KedgePostgres", "KedgeCodec", "KedgeCore"]),
        tests(
            "KedgeBackupTests",
            ["KedgeBackup", "KedgeCatalog", "KedgeRepository", "KedgePostgres", "KedgeCodec", "KedgeCore"]),
        tests("KedgeCatalogTests", ["KedgeCatalog", "KedgeRepository", "KedgePostgres", "KedgeCodec", "KedgeCore"]),
        tests(
            "KedgeCodecTests",
            ["KedgeCodec", "OpenSSL", "Zlib", "LZ4", "Zstd", "XXHash", "CArithmetic", "KedgeCore", "CTestSupport"]),
        tests(
            "KedgeCommandTests",
            [
                "KedgeCommand", "KedgeVerify", "KedgeArchive", "KedgeBackup", "KedgeCatalog", "KedgeRepository",
                "KedgePostgres", "KedgeCodec", "KedgeCore",
            ]),
        tests("KedgeCoreTests", ["KedgeCore", "CArithmetic", "CTestSupport"]),
        tests(
            "KedgeDrillTests",
            [
                "KedgeDrill", "KedgeRestore", "KedgeCatalog", "KedgeRepository", "KedgePostgres", "KedgeCodec",
                "KedgeCore",
            ]),
        tests("KedgeEndToEndTests", ["KedgeCatalog", "KedgeRepository", "KedgePostgres", "KedgeCodec", "KedgeCore"]),
        // What scripts/fuzz.sh feeds, and the quick tier with the corpus
        .target(
            name: "KedgeFuzzTargets",
            dependencies: [
                "KedgeCommand", "KedgeRestore", "KedgeCatalog", "KedgeRepository", "KedgePostgres", "KedgeCodec",
                "Expat", "OpenSSL", "XXHash", "KedgeCore", "KedgeTestSupport",
            ],
            path: "Tests/Fuzzing/Targets", swiftSettings: strict),
        tests(
            "KedgeFaultTests",
            [
                "KedgeVerify", "KedgeArchive", "KedgeBackup", "KedgeRestore", "KedgeCatalog", "KedgeRepository",
                "KedgePostgres", "KedgeCodec", "KedgeFuzzTargets", "KedgeCore",
            ]),
        tests("KedgePostgresTests", ["KedgePostgres", "KedgeCodec", "KedgeCore"]),
        tests("KedgeRepositoryTests", ["KedgeRepository", "KedgeCodec", "KedgeCore", "Expat"]),
        tests(
            "KedgeRestoreTests",
            ["KedgeRestore", "KedgeCatalog", "KedgeRepository", "KedgePostgres", "KedgeCodec", "KedgeCore"]),
        tests(
            "KedgeSetupTests",
            ["KedgeSetup", "KedgeCatalog", "KedgeRepository", "KedgePostgres", "KedgeCodec", "KedgeCore"]),
        tests(
            "KedgeVerifyTests",
            [
                "KedgeVerify", "KedgeBackup", "KedgeRestore", "KedgeCatalog", "KedgeRepository", "KedgePostgres",
                "KedgeCodec", "KedgeCore",
            ]),
        tests("KedgeTestSupportTests", ["KedgeRepository", "KedgeCore"]),
    ],
    swiftLanguageModes: [.v6]
)

// The fuzzer's own program has no entry point but libFuzzer's, so that it can be linked only with `--sanitize=fuzzer`.
if Context.environment["KEDGE_FUZZ"] != nil {
    package.targets.append(
        .executableTarget(
            name: "kedge-fuzz", dependencies: ["KedgeFuzzTargets", "KedgeCore"], path: "Tests/Fuzzing/Driver",
            swiftSettings: strict + [.unsafeFlags(["-parse-as-library"])]))
}
