# Sign-in: the right tenant or none, sessions of others left as they are, every way of signing in.

# Each script with what it cannot do without.
$least = [ordered]@{
    'Test-GatepostPreflight' = @{}; 'Export-GatepostState' = @{}; 'Install-GatepostConnector' = @{}; 'Confirm-GatepostConnector' = @{ Recipient = 'admin@contoso.com'; WaitMinutes = 0 }
    'Set-GatepostRollout' = @{ Stage = 'Audit' }; 'Repair-GatepostConnector' = @{}; 'Update-GatepostSecret' = @{ Stage = 'Both' }; 'Set-GatepostArcSealer' = @{ Domain = 'gatepost.example' }
    'Set-GatepostEnhancedFiltering' = @{ Mode = 'SkipLastIP' }; 'Remove-GatepostConnector' = @{}
}
function Get-Least {
    param([string]$Name)
    $with = @{}
    foreach ($key in $least[$Name].Keys) { $with[$key] = $least[$Name][$key] }
    if ($Name -eq 'Export-GatepostState') { $with['Folder'] = [System.IO.Path]::Combine((New-WorkFolder), 'state') }
    $with
}
function Get-Session { @(Get-StandInConnection | ForEach-Object { "$($_.TenantID) $($_.ModulePrefix)" }) }
function Add-Fabrikam { Add-StandInTenant -TenantId $foreign -Organization 'fabrikam.onmicrosoft.com' -AcceptedDomains 'fabrikam.com', 'fabrikam.onmicrosoft.com' -User 'admin@fabrikam.com' }

foreach ($name in $least.Keys) {
    Test-Case "session: $name refuses a window that is connected to another tenant, before any other call" -With $name {
        param($name)
        $null = Add-Contoso
        $null = Add-Fabrikam
        Set-StandInConnection -TenantId $foreign
        $run = Invoke-Script $name -With (Get-Least $name)
        Assert-That ($run.Failed -match $foreign -and $run.Failed -match $kit.TenantId) "a refusal that names both tenants, found '$($run.Failed)'"
        Assert-Equal @(Get-StandInCall | ForEach-Object { $_.Cmdlet } | Sort-Object -Unique) @('Get-ConnectionInformation') 'the calls'
        Assert-Equal (Get-Session) @("$foreign ") 'the foreign session is left'
    }
}

Test-Case 'session: a sign-in that leads to another tenant is refused before any call to it, and closed' {
    $null = Add-Fabrikam
    $null = Add-Contoso
    $run = Invoke-Script 'Install-GatepostConnector'
    Assert-That ($run.Failed -match $foreign) "a refusal, found '$($run.Failed)'"
    Assert-Equal @(Get-StandInCall | Where-Object { $null -ne $_.TenantId }) @() 'no call to a tenant'
    Assert-Equal (Get-Session) @() 'no session is left'
}

Test-Case 'session: an open session of the tenant is used and left open' {
    $null = Add-Contoso
    Set-StandInConnection -TenantId $kit.TenantId
    $null = Invoke-Good 'Install-GatepostConnector'
    Assert-Equal @(Get-StandInCall | Where-Object { $_.Cmdlet -match 'connect-' }) @() 'neither connect nor disconnect'
    Assert-Equal (Get-Session) @("$($kit.TenantId) ") 'the session is open'
}

Test-Case 'session: a session of another tenant with a prefix is left, only the own one is closed' {
    $null = Add-Contoso
    $null = Add-Fabrikam
    Set-StandInConnection -TenantId $foreign -Prefix 'Fab'
    $before = Get-StandInSnapshot -TenantId $foreign
    $null = Invoke-Good 'Install-GatepostConnector'
    Assert-Equal (Get-Session) @("$foreign Fab") 'the sessions'
    Assert-Equal @(Get-StandInCall -Name 'Connect-ExchangeOnline').Count 1 'one sign-in'
    Assert-Equal @(Get-StandInCall | Where-Object { $_.TenantId -eq $foreign }) @() 'no call to the other tenant'
    Assert-Equal (Get-StandInSnapshot -TenantId $foreign) $before 'the other tenant'
}

foreach ($state in @(@{ TokenStatus = 'Expired' }, @{ State = 'Broken' }, @{ IsEopSession = $true })) {
    Test-Case "session: one with $(@($state.Keys)[0]) $(@($state.Values)[0]) is not used" -With $state {
        param($state)
        $null = Add-Contoso
        Set-StandInConnection -TenantId $kit.TenantId @state
        $null = Invoke-Good 'Install-GatepostConnector'
        Assert-Equal @(Get-StandInCall -Name 'Connect-ExchangeOnline').Count 1 'one sign-in'
        Assert-Equal @(Get-Session).Count 1 'the old session is left, the own one is closed'
    }
}

Test-Case 'session: signed in as an application by certificate file, in the cloud of the tenant' {
    $values = $kit.Clone()
    $values['ExchangeEnvironmentName'] = 'O365USGovDoD'
    $tenant = Add-Contoso
    $tenant.Environment = 'O365USGovDoD'
    $folder = New-Kit -Values $values
    $pfx = [System.IO.Path]::Combine($folder, 'app.pfx')
    [System.IO.File]::WriteAllText($pfx, 'x')
    $password = New-Object System.Security.SecureString
    $null = Invoke-Good 'Install-GatepostConnector' -Folder $folder -With @{ AppId = 'app'; Organization = 'contoso.onmicrosoft.com'; CertificateFilePath = $pfx; CertificatePassword = $password }
    $call = @(Get-StandInCall -Name 'Connect-ExchangeOnline')[0]
    Assert-Equal @($call.Parameters.Keys | Where-Object { $_ -ne 'ErrorAction' } | Sort-Object) @('AppId', 'CertificateFilePath', 'CertificatePassword', 'ExchangeEnvironmentName', 'Organization', 'ShowBanner') 'the parameters'
    Assert-Equal @($call.Parameters['ExchangeEnvironmentName'], [bool]$call.Parameters['ShowBanner']) @('O365USGovDoD', 'False') 'their values'
    Assert-Equal (Get-Session) @() 'no session is left'
}

Test-Case 'session: as a managed identity, and as a partner with delegated access' {
    $tenant = Add-Contoso
    $null = Invoke-Good 'Install-GatepostConnector' -With @{ ManagedIdentity = $true; Organization = 'contoso.onmicrosoft.com' }
    $null = Add-Fabrikam
    $tenant.Partners = @('fabrikam.onmicrosoft.com')
    $null = Invoke-Good 'Install-GatepostConnector' -With @{ UserPrincipalName = 'admin@fabrikam.com'; DelegatedOrganization = 'contoso.onmicrosoft.com' }
    Assert-Equal (Get-Session) @() 'no session is left'
}

foreach ($wrong in @(
        @{ AppId = 'app' }, @{ AppId = 'app'; Organization = 'contoso.onmicrosoft.com' }, @{ Organization = 'contoso.onmicrosoft.com' }, @{ CertificateThumbprint = 'AA' }, @{ ManagedIdentity = $true },
        @{ AppId = 'app'; Organization = 'contoso.onmicrosoft.com'; CertificateThumbprint = 'AA'; CertificateFilePath = 'b.pfx' }, @{ AppId = 'app'; Organization = 'contoso.onmicrosoft.com'; CertificateThumbprint = 'AA'; UserPrincipalName = 'a@contoso.com' })) {
    Test-Case "session: -$(@($wrong.Keys | Sort-Object) -join ' -') alone is refused before any sign-in" -With $wrong {
        param($wrong)
        $null = Add-Contoso
        $run = Invoke-Script 'Export-GatepostState' -With ($wrong + @{ Folder = [System.IO.Path]::Combine((New-WorkFolder), 'state') })
        Assert-That ($run.Failed -match '^(?!Failed while).*-\w+') "a refusal that names a parameter, found '$($run.Failed)'"
        Assert-Equal @(Get-StandInCall -Name 'Connect-ExchangeOnline') @() 'no sign-in'
    }
}

Test-Case 'session: what the sign-in answers is told, for an application without the role' {
    $tenant = Add-Contoso
    $tenant.Apps['app'].Role = $false
    $pfx = [System.IO.Path]::Combine((New-WorkFolder), 'app.pfx')
    [System.IO.File]::WriteAllText($pfx, 'x')
    $run = Invoke-Script 'Install-GatepostConnector' -With @{ AppId = 'app'; Organization = 'contoso.onmicrosoft.com'; CertificateFilePath = $pfx }
    Assert-That ($run.Failed -match 'signing in' -and $run.Failed -match 'Exchange\.ManageAsApp') "what was being done and the answer, found '$($run.Failed)'"
}

Test-Case 'session: without the module the script says how to install it' {
    $null = Add-Contoso
    $path = $env:PSModulePath
    Remove-Module -Name 'ExchangeOnlineManagement' -ErrorAction SilentlyContinue
    try {
        $env:PSModulePath = New-WorkFolder
        $run = Invoke-Script 'Install-GatepostConnector'
    } finally { $env:PSModulePath = $path }
    Assert-That ($run.Failed -match 'Install-Module -Name ExchangeOnlineManagement') "how to install it, found '$($run.Failed)'"
}

foreach ($name in 'Install-GatepostConnector', 'Repair-GatepostConnector', 'Update-GatepostSecret') {
    Test-Case "session: $name refuses a secrets file of another tenant, one that is missing and one that is none, before any call" -With $name {
        param($name)
        $null = Add-Contoso
        $folder = New-WorkFolder
        [System.IO.File]::Copy([System.IO.Path]::Combine((Get-Kit), "$name.ps1"), [System.IO.Path]::Combine($folder, "$name.ps1"))
        $run = Invoke-Script $name -Folder $folder -With (Get-Least $name)
        Assert-That ($run.Failed -match 'gatepost-secrets\.json') "the missing file is named, found '$($run.Failed)'"
        $other = $kit.Clone()
        $other['TenantId'] = $foreign
        Set-KitSecret -Folder $folder -Values $other
        $run = Invoke-Script $name -Folder $folder -With (Get-Least $name)
        Assert-That ($run.Failed -match $foreign) "the other tenant is named, found '$($run.Failed)'"
        [System.IO.File]::WriteAllText([System.IO.Path]::Combine($folder, 'gatepost-secrets.json'), '{"TenantId"')
        $run = Invoke-Script $name -Folder $folder -With (Get-Least $name)
        Assert-That ($run.Failed -match 'gatepost-secrets\.json') "the broken file is named, found '$($run.Failed)'"
        Assert-Equal @(Get-StandInCall) @() 'nothing was called'
        Set-KitSecret -Folder $folder
        (Get-Item -LiteralPath ([System.IO.Path]::Combine($folder, 'gatepost-secrets.json'))).UnixFileMode = 'UserRead, UserWrite, OtherRead'
        $run = Invoke-Script $name -Folder $folder -With (Get-Least $name)
        Assert-That (@($run.Warnings | Where-Object { $_ -match 'chmod 600' }).Count -eq 1) "a warning about a file that others may read, found $($run.Warnings)"
    }
}
