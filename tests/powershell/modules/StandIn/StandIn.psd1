@{
    RootModule        = 'StandIn.psm1'
    ModuleVersion     = '1.0.0'
    GUID              = 'f2f3a9a1-0d0e-4f6e-8a56-1a0c9c7e2b77'
    Author            = 'Gatepost test code'
    Description       = 'Test code. The tenants behind the stand-in module ExchangeOnlineManagement, and what a test may do to them.'
    PowerShellVersion = '5.1'
    FunctionsToExport = @(
        'Reset-StandIn', 'Add-StandInTenant', 'Get-StandInTenant', 'Set-StandInProperty', 'Add-StandInTrace',
        'Get-StandInCall', 'Clear-StandInCall', 'Set-StandInFault', 'Get-StandInFault', 'Set-StandInClock', 'Set-StandInValidation',
        'Get-StandInConnection', 'Set-StandInConnection', 'Get-StandInSnapshot',
        'Get-StandInSource', 'Invoke-StandInCommand'
    )
    CmdletsToExport   = @()
    VariablesToExport = @()
    AliasesToExport   = @()
}
