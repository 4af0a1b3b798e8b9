@{
    RootModule        = 'ExchangeOnlineManagement.psm1'
    ModuleVersion     = '3.9.2'
    GUID              = '6c1f6b3e-6d0f-4b4f-9f0c-5a1f7d3b9c11'
    Author            = 'Gatepost test code: a stand-in, not the module of this name'
    Description       = 'Test code. Connect-ExchangeOnline and its companions for a tenant in memory; see tests/powershell/README.md.'
    PowerShellVersion = '5.1'
    FunctionsToExport = @('Connect-ExchangeOnline', 'Disconnect-ExchangeOnline', 'Get-ConnectionInformation')
    CmdletsToExport   = @()
    VariablesToExport = @()
    AliasesToExport   = @()
}
